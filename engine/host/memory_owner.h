// SPDX-License-Identifier: Apache-2.0
//
// Whose memory is behind a userfaultfd. The process that hands it over need not be the one: an
// orchestrator may do the handshake for its VMM. The kernel has no call that says it; what it shows
// is
//  - which memory of a process is registered with some userfaultfd (smaps, "um"), and that memory
//  at
//    these addresses is registered in the address space behind this one (fl_uffd_registered);
//  - that a process holds this very userfaultfd (its inode number, which is its own, and kcmp);
//  - that a page which is poisoned through this userfaultfd appears in the process's page tables.
// The first two together name a process; where it has closed its descriptor, it must be the only
// one in which all of the memory is registered. (Processes that were forked by one have the same
// addresses.) The third is proof, and costs a page: for memory that is given up anyway.
//
// A process that is in no PID namespace of ours, or that we may not look at (CAP_SYS_PTRACE), is
// not found: then no process is to be killed for this memory. Any thread; blocks for as long as
// /proc takes: 1 ms, but 10 ms for each GiB that is there, and all processes where the likely one
// is not it.
#ifndef FAULTLINE_HOST_MEMORY_OWNER_H
#define FAULTLINE_HOST_MEMORY_OWNER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/host/region.h"

struct fl_memory_owner {
    pid_t pid;
    int pidfd;     // the caller closes it
    bool complete; // all of the layout is registered in it
    bool shared;   // some of that memory is mapped shared
    bool file;     // some of it is of a file
    // A fault in some of it may bring a transparent huge page, by what the kernel, the process and
    // the mapping have chosen.
    bool transparent;
    bool unreserved; // some of it is mapped with MAP_NORESERVE
};

// `likely` is looked at first; 0: none is. `layout` may have no regions: then the process must hold
// the userfaultfd. `prove`: a page that is missing may be poisoned for it, and a thread that waits
// there is not woken; this is done where there is one and the kernel can. -ESRCH: none is found;
// -ENOTUNIQ: several could be it.
int fl_memory_owner_find(int uffd, const struct fl_layout *layout, pid_t likely, bool prove,
                         struct fl_memory_owner *ret_owner);

// Whether two processes have one address space.
bool fl_memory_owner_same_memory(pid_t a, pid_t b);

// Whether the process runs a guest under KVM, which makes some of the guest's accesses itself. True
// also if that cannot be seen.
bool fl_memory_owner_has_kvm(pid_t pid);

#endif
