// SPDX-License-Identifier: Apache-2.0
//
// A file that the user names. It is written beside its place and put there whole, or not at all. It
// replaces a regular file only: device nodes, FIFOs, sockets and links stay what they are. Nothing
// is written within a store. One thread.
#ifndef FAULTLINE_SNAPSHOT_OUTPUT_H
#define FAULTLINE_SNAPSHOT_OUTPUT_H

#include <stdbool.h>

#include "snapshot/publish.h"

struct fl_output {
    const char *base; // the last part of the path that was given
    bool force;
    int dir_fd;
    struct fl_temp temp; // its fd is what is written to
};

// Begins the file. -EEXIST: there is a file (without force); FL_OUTPUT_KIND: there is something
// that is not a regular file; FL_OUTPUT_STORE: the place is within a store; other errors are
// -errno. The string `path` must outlive the output.
#define FL_OUTPUT_KIND (-EMEDIUMTYPE)
#define FL_OUTPUT_STORE (-EXDEV)
int fl_output_open(const char *path, bool force, struct fl_output *ret_output);
// Flushes the file and puts it in its place. Errors likewise, as the place may have changed
// meanwhile.
int fl_output_publish(struct fl_output *output);
// Removes a file that was not published. Call it also after fl_output_open has failed.
void fl_output_close(struct fl_output *output);
// Returns what to say after the path and a colon. The text is constant or strerror()'s.
const char *fl_output_strerror(int error);

#endif
