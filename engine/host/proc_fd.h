// SPDX-License-Identifier: Apache-2.0
//
// Descriptors of other processes, as /proc shows them, and how to get one. Processes come and go
// meanwhile: what is told may be true no more. Any thread.
#ifndef FAULTLINE_HOST_PROC_FD_H
#define FAULTLINE_HOST_PROC_FD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct fl_proc_fd {
    pid_t pid;
    pid_t tid;          // the task through which it can be seen
    int fd;             // its number there
    const char *target; // what its link says
};

// Calls fn with each descriptor of the process; stops at its first non-zero result and returns it.
// -errno if they cannot be read.
int fl_proc_each_fd(pid_t pid, int (*fn)(void *arg, const struct fl_proc_fd *fd), void *arg);
// The same for all processes. *ret_complete: false if some could not be read for want of rights.
int fl_proc_each_fd_of_all(int (*fn)(void *arg, const struct fl_proc_fd *fd), void *arg,
                           bool *ret_complete);

// The target of a userfaultfd's link.
#define FL_PROC_UFFD_TARGET "anon_inode:[userfaultfd]"

// What fdinfo says of a userfaultfd.
struct fl_proc_uffd {
    uint64_t inode;    // identity on this host
    uint64_t pending;  // faults that no process has read
    uint64_t total;    // those and the ones that were read and are not resolved
    uint64_t features; // that were asked for
    bool ready;        // UFFDIO_API was done
};
// False if it is none.
bool fl_proc_uffd(const struct fl_proc_fd *fd, struct fl_proc_uffd *ret_uffd);

// A copy of that descriptor: the descriptor, or -errno (-EPERM without the right to trace the
// process).
int fl_proc_take_fd(pid_t pid, pid_t tid, int fd);

#endif
