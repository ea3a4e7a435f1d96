// SPDX-License-Identifier: Apache-2.0
//
// Brings parts of a file into the page cache by reading them, so that they are charged to the
// memory cgroup of this process and not to that of the first VM (docs/files.md).
//
// The file is one whose pages another process serves, which may hang: whoever calls this waits
// then, until that process answers or the connection is aborted. SIGKILL ends such a wait.
#ifndef FAULTLINE_TOOLS_VERBS_WARM_FILE_H
#define FAULTLINE_TOOLS_VERBS_WARM_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "tools/verbs/warm_order.h"

struct warm_file {
    int fd;           // of the file, open for reading
    uint64_t bytes;   // its size
    unsigned reserve; // percent of the host's memory that is left alone
    int told_fd;      // ends when a byte comes from this socket; -1: none
};

enum warm_end {
    WARM_DONE,
    WARM_SCARCE, // the host is short of memory
    WARM_TOLD,   // a byte has come
};

struct warmed {
    uint64_t there;   // pages that were in the page cache before
    uint64_t brought; // pages that are now, those included
    uint64_t failed;  // pages that could not be read
    int error;        // why, for the first of them
    enum warm_end end;
};

// -errno if the file cannot be used at all.
int warm_file(const struct warm_file *file, const struct warm_order *order,
              struct warmed *ret_warmed);

#endif
