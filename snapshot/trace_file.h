// SPDX-License-Identifier: Apache-2.0
//
// A trace's file read into private memory and checked, and a new one published. Any thread; blocks
// on storage. Errors are negative errno.
#ifndef FAULTLINE_SNAPSHOT_TRACE_FILE_H
#define FAULTLINE_SNAPSHOT_TRACE_FILE_H

#include <stdbool.h>

#include "snapshot/format.h"

#define FL_TRACE_SUFFIX ".trace"
#define FL_TRACE_NAME_BYTES (FL_NAME_MAX + sizeof(FL_TRACE_SUFFIX))
// Sums of so many recordings fit their fields with room to spare.
#define FL_TRACE_RUNS_MAX (1u << 24)

struct fl_trace_file {
    struct fl_disk_trace_header header;
    struct fl_disk_trace_entry *entries; // header.count, from malloc
};

// The file name of an image's trace. -EINVAL if the name may not name an image.
int fl_trace_file_name(const char *name, char ret_file[FL_TRACE_NAME_BYTES]);
// Opens traces/ of the store. -ENOENT: no trace was ever made, unless create is set.
int fl_trace_dir_open(int store_fd, bool create, int *ret_fd);
// Waits for the lock of who changes or removes traces, until the descriptor is closed. Who holds it
// waits for no other lock. -EINTR, -errno.
int fl_trace_dir_lock(int traces_fd);

// The header alone, verified against its checksum, the name and the file's size. -ENOENT, -EINVAL
// (name), -EBADMSG, -EPROTONOSUPPORT, errors of reading.
int fl_trace_file_header(int store_fd, const char *name, struct fl_disk_trace_header *ret_header);
// All of it, every entry verified. Also -ENOMEM. Release with fl_trace_file_free.
int fl_trace_file_load(int store_fd, const char *name, struct fl_trace_file *ret_file);
void fl_trace_file_free(struct fl_trace_file *file);

// qsort's, of entries: the order of replay. What more recordings have comes first, then what has
// the lower mean position, then the lower page.
int fl_trace_compare(const void *left, const void *right);
// Publishes it under the header's name, in the place of any other. Magic, version and checksums of
// the header are filled in here.
int fl_trace_file_publish(struct fl_trace_file *file, int tmp_fd, int traces_fd);

#endif
