// SPDX-License-Identifier: Apache-2.0
//
// The beginning and the end of the files' thread. Control thread.
#ifndef FAULTLINE_FILES_FILES_THREAD_H
#define FAULTLINE_FILES_FILES_THREAD_H

struct fl_files;

// 0 or -errno.
int fl_files_thread_start(struct fl_files *files);
// Waits for it; one that does not run is none to stop.
void fl_files_thread_stop(struct fl_files *files);

#endif
