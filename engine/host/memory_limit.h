// SPDX-License-Identifier: Apache-2.0
//
// The memory limit that a process is under: that of its memory cgroup, or of one above it,
// whichever leaves the least. Pages that are filled for a VM are charged to its cgroup, and the
// thread that fills them makes room there: at the limit that takes as long as the swap is slow
// (mm/memcontrol.c).
//
// Both versions of cgroups: memory.max, memory.current and the "max" of memory.events of version 2;
// memory.limit_in_bytes, usage_in_bytes and failcnt of version 1
// (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst). Any thread; reads /proc and the
// cgroups' files, which may take a lock of the kernel's: not for a thread that serves VMs.
#ifndef FAULTLINE_HOST_MEMORY_LIMIT_H
#define FAULTLINE_HOST_MEMORY_LIMIT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/host/cgroup.h"

struct fl_memory_limit {
    char cgroup[FL_CGROUP_PATH]; // its path below the mount; "" and a limit of 0: there is none
    uint64_t limit;              // bytes
    uint64_t used;
    uint64_t hits; // times that the limit was met; grows
    int version;   // of cgroups
};

// Where cgroups are mounted here: once for many.
struct fl_cgroup_mounts {
    char unified[FL_CGROUP_PATH]; // "" without one
    char memory[FL_CGROUP_PATH];  // of version 1
};
void fl_cgroup_mounts(struct fl_cgroup_mounts *ret_mounts);

// -ESRCH, -ENOENT: the process is gone, or no file that can be read says anything.
int fl_memory_limit(const struct fl_cgroup_mounts *mounts, pid_t pid,
                    struct fl_memory_limit *ret_limit);
// The same, by what /proc/PID/cgroup says. -ENOENT.
int fl_memory_limit_of(const struct fl_cgroup_mounts *mounts, const char *cgroups,
                       struct fl_memory_limit *ret_limit);
// "memory.max of /vms/7 is 1073741824 bytes, 1073700864 are used".
void fl_memory_limit_text(const struct fl_memory_limit *limit, char *text, size_t size);

#endif
