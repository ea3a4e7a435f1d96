// SPDX-License-Identifier: Apache-2.0
//
// A file that the user names: written beside its place and put there whole, or not at all. What is
// there already gives way only if it is a regular file: device nodes, FIFOs, sockets and links are
// somebody else's, and so is what is within a store. One thread.
#ifndef FAULTLINE_SNAPSHOT_OUTPUT_H
#define FAULTLINE_SNAPSHOT_OUTPUT_H

#include <stdbool.h>

#include "snapshot/publish.h"

struct fl_output {
    const char *base; // in the path that was given
    bool force;
    int dir_fd;
    struct fl_temp temp; // its fd is what is written to
};

// -EEXIST: there is something, without force; FL_OUTPUT_KIND: there is something that is no regular
// file; FL_OUTPUT_STORE: the place is within a store; -errno. The path has to stay as it is.
#define FL_OUTPUT_KIND (-EMEDIUMTYPE)
#define FL_OUTPUT_STORE (-EXDEV)
int fl_output_open(const char *path, bool force, struct fl_output *ret_output);
// Flushes it and puts it there. Errors likewise: what is there may have changed meanwhile.
int fl_output_publish(struct fl_output *output);
// Removes what was not published. After fl_output_open has failed, too.
void fl_output_close(struct fl_output *output);
// What to say after the path. Constant or strerror()'s.
const char *fl_output_strerror(int error);

#endif
