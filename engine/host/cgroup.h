// SPDX-License-Identifier: Apache-2.0
//
// Limits of cgroups, of version 1 and 2. A limit may lie in the process's own cgroup or in any
// above it. Any thread; reads /proc and the cgroup file systems.
//
// Which cgroup is charged (Linux 6.18): for a page of 4 KiB that is filled, the cgroup of the VM's
// process; for a page of 2 MiB, and for page tables, that of the process that fills them.
#ifndef FAULTLINE_HOST_CGROUP_H
#define FAULTLINE_HOST_CGROUP_H

#include <stdint.h>
#include <sys/types.h>

enum { FL_CGROUP_PATH = 256 };

enum fl_cgroup_resource {
    FL_CGROUP_MEMORY,
    FL_CGROUP_HUGE_PAGES, // of 2 MiB
};

struct fl_cgroup_limit {
    char path[FL_CGROUP_PATH]; // as mounted here
    uint64_t limit;            // bytes
    uint64_t used;
};

// The nearest cgroup of the process (0: our own) that has less than `room` bytes left: 1 and its
// limit. 0: none has. -errno: that cannot be seen (-ENOENT: no such controller is mounted).
int fl_cgroup_full(pid_t pid, enum fl_cgroup_resource resource, uint64_t room,
                   struct fl_cgroup_limit *ret_limit);

#endif
