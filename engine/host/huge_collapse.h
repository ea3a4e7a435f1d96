// SPDX-License-Identifier: Apache-2.0
//
// Putting 512 pages of 4 KiB of another process together to one page of 2 MiB: MADV_COLLAPSE
// (Linux 6.1). Tried with Linux 6.1, 6.12 and 6.18, on private anonymous memory that is registered
// with a userfaultfd:
//  - all 512 pages must be there, none of them the shared page of zeros: a hole is never filled;
//  - faults and copies in the same mapping wait for nearly all of the call: about 1 ms, up to 4.6;
//  - the memory is charged to the process; what is given back later splits the page, and is told.
// Never on shared memory: Linux 6.1 fills holes of a memfd with zeros, and no event tells of it.
#ifndef FAULTLINE_HOST_HUGE_COLLAPSE_H
#define FAULTLINE_HOST_HUGE_COLLAPSE_H

#include <stdint.h>

// The kernel takes memory for the page of 2 MiB within the call. In a virtual machine whose host
// has to find that memory first, this takes several times as long as all else, and the process
// waits for it. So a page of 2 MiB is had from the kernel, touched and given back before: the call
// takes that one, which the kernel keeps for the next to want one on this CPU. A hint: it costs
// 0.1 ms where the memory is there. Of one thread; all zero at first.
struct fl_huge_room {
    void *base; // of two pages of 2 MiB, so that an aligned one is in it
};
void fl_huge_room_make(struct fl_huge_room *room);
void fl_huge_room_end(struct fl_huge_room *room);

// Any thread; waits for the process's mmap lock. `address` is a multiple of 2 MiB. 0 also if it is
// one page already.
// -EAGAIN a page is pinned, or on its way to or from swap: later
// -EBUSY  a page is absent, or is the shared page of zeros (-EINVAL on 6.1); or the memory limit of
//         the process leaves no room for 2 MiB
// -ENOMEM the host has no 2 MiB in one piece
// -EINVAL it will never be: advice against it, a mapping that ends in the range, a protected page;
//         on 6.1 and 6.12 also a page shared after a fork; or the kernel cannot
// -EPERM, -EACCES  it is not ours to do (CAP_SYS_NICE, and the right to ptrace)
// -ENOSYS a filter of system calls forbids it; -ESRCH: the process has ended
int fl_huge_collapse(int pidfd, uint64_t address);

#endif
