// SPDX-License-Identifier: Apache-2.0
//
// The userfaultfd ioctls: the only place in the engine that issues them.
//
// All return 0 or a negative errno and may be called from any thread, but only the owner worker of
// a VM calls those that fill pages (a REMOVE can then never race a copy of ours). Meaning of the
// errors that callers act on, from fs/userfaultfd.c (Linux 6.18) and docs/engine.md:
//   -EEXIST a page is there already (its waiter may still sleep: wake it); of a huge page, which
//           is copied, it may also mean that none is free (6.18 to 7.3): ask presence.h
//   -EAGAIN a REMOVE is in flight: read events, look again, retry
//   -ENOENT the range is not registered (any more), or spans mappings
//   -ESRCH  the address space is gone
//   -ENOMEM, -ENOSPC no memory or no huge page for it now
#ifndef FAULTLINE_HOST_UFFD_H
#define FAULTLINE_HOST_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/userfaultfd.h>

struct fl_uffd_info {
    bool ready;        // UFFDIO_API was done by the client
    uint64_t features; // that it asked for
};

// -EINVAL if fd is not a userfaultfd, and only then. Makes it O_NONBLOCK: a blocking one polls as
// an error.
int fl_uffd_examine(int fd, struct fl_uffd_info *ret_info);

// Whether the client asked for an event for each page that it drops with madvise().
bool fl_uffd_tells_removes(int fd);

// What the client asked for.
int fl_uffd_features(int fd, uint64_t *ret_features);
// A descriptor by which the other looks how many faults wait to be read, or -errno. Faults are read
// before events; of a userfaultfd that has events alone it is 0.
int fl_uffd_open_info(int fd);
int fl_uffd_pending(int info, unsigned *ret_pending);

// Reads messages without ever waiting. Bytes, or -errno (-EAGAIN: there are none).
ssize_t fl_uffd_read(int fd, struct uffd_msg *messages, size_t count);

// Bytes that were filled before an error are in *ret_done (set in every case). Without `wake` the
// threads that wait for them are left asleep.
int fl_uffd_copy(int fd, uint64_t to, const void *from, uint64_t bytes, bool wake,
                 uint64_t *ret_done);
int fl_uffd_zero(int fd, uint64_t to, uint64_t bytes, bool wake, uint64_t *ret_done);
// -ENOSYS where the kernel cannot poison (before 6.6).
int fl_uffd_poison(int fd, uint64_t to, uint64_t bytes);
// The same, and leaves the threads asleep that wait for it.
int fl_uffd_poison_quietly(int fd, uint64_t to, uint64_t bytes);
bool fl_uffd_can_poison(int fd);
int fl_uffd_wake(int fd, uint64_t start, uint64_t bytes);
// Wakes the threads that wait on it, wherever: each looks again, and faults again if it must.
void fl_uffd_wake_all(int fd);
int fl_uffd_unregister(int fd, uint64_t start, uint64_t bytes);
// Write protection of pages that are there, and of pages of 2 MiB whether they are or not. It is a
// mode to register for beside the missing pages, by whoever has the userfaultfd; a mode is never
// dropped again. -ENOTSUP, -EINVAL where this memory, or this kernel, cannot have it. A page that
// is not registered for it is -ENOENT.
int fl_uffd_register_protect(int fd, uint64_t start, uint64_t bytes);
int fl_uffd_protect(int fd, uint64_t start, uint64_t bytes);
// Wakes, too. Also resolves faults that a client has arranged for, as does the other.
int fl_uffd_unprotect(int fd, uint64_t start, uint64_t bytes);
int fl_uffd_continue(int fd, uint64_t start, uint64_t bytes);

// One of our own, for memory of ours that no thread touches: by it pages of shared memory are
// filled as a whole. Faults of the kernel's on it fail rather than wait. The descriptor, or -errno.
int fl_uffd_new(void);
int fl_uffd_register(int fd, uint64_t start, uint64_t bytes);

// False once the address space behind fd is gone: only then (or after unregistering) may the last
// descriptor be closed, since waiters of a closed userfaultfd read zeros.
bool fl_uffd_alive(int fd);

// True while a REMOVE is in flight: its thread may need us to read, and to go on.
bool fl_uffd_removing(int fd);
// True if both are the same userfaultfd, whatever their numbers and however they came here.
bool fl_uffd_same(int a, int b);
// Its inode, the same however it came here; 0: not known. To ask the kernel of one out of many is
// needed only where fl_uffd_may_be_same() is true of the inodes: mostly of one, then.
uint64_t fl_uffd_inode(int fd);
static inline bool fl_uffd_may_be_same(uint64_t a, uint64_t b)
{
    return a == b || a == 0 || b == 0;
}
// False if the page at `address` is not registered with it (any more). Changes nothing.
bool fl_uffd_registered(int fd, uint64_t address, uint64_t page_bytes);
// Whether memory that is registered with some userfaultfd is with this one. Changes nothing then.
bool fl_uffd_owns(int fd, uint64_t start, uint64_t bytes);

#endif
