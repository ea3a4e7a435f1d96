// SPDX-License-Identifier: Apache-2.0
//
// A file's bytes in parts, several of them on their way at a time, each over a connection of its
// own, while one thread sees them in their order: it can hash what is sent, and write down what
// comes without ever leaving a hole. What stands in a list, and of which each needs a request, can
// be gone through in the same way: an offset is a place in the list then, and buf is of no use.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_PARTS_H
#define FAULTLINE_SNAPSHOT_REMOTE_PARTS_H

#include "snapshot/remote/s3.h"

struct fl_part {
    uint64_t number; // from 0 on
    uint64_t offset;
    size_t bytes;
    char *buf;
};

struct fl_parts {
    struct fl_s3 *s3;
    uint64_t first; // offset of part 0
    uint64_t end;   // of the last part; above first
    size_t part_bytes;
    // In the caller's thread, for each part in order, before and after `work`. NULL: nothing.
    int (*before)(void *arg, const struct fl_part *part, struct fl_error *ret_error);
    int (*after)(void *arg, const struct fl_part *part, struct fl_error *ret_error);
    // In other threads.
    int (*work)(void *arg, struct fl_s3_link *link, const struct fl_part *part,
                struct fl_error *ret_error);
    void *arg;
};

// Returns the first error in the order of parts, and calls nothing for parts behind it.
int fl_parts_run(const struct fl_parts *parts, struct fl_error *ret_error);

#endif
