// SPDX-License-Identifier: Apache-2.0
//
// io_uring, as the read-ahead uses it: reads, and a descriptor that ends a wait for them. One
// thread. Source: io_uring(7).
#ifndef FAULTLINE_CACHE_URING_H
#define FAULTLINE_CACHE_URING_H

#include <stdbool.h>
#include <stdint.h>

struct fl_uring;

// event_fd: an eventfd of the caller's, for fl_uring_turn(). Up to `depth` reads may be on their
// way. -EPERM, -ENOSYS and others where io_uring is not to be had.
int fl_uring_open(int event_fd, unsigned depth, struct fl_uring **ret_ring);
// When no read is on its way.
void fl_uring_close(struct fl_uring *ring);

// At the next turn. `user` is not NULL.
void fl_uring_read(struct fl_uring *ring, int fd, void *buf, uint32_t bytes, uint64_t offset,
                   void *user);
// Starts what was asked for and calls done() for each read that has ended, with the bytes it
// brought or a negative errno. `wait`: until one has, or the eventfd is readable. True if any has.
bool fl_uring_turn(struct fl_uring *ring, bool wait,
                   void (*done)(void *arg, void *user, int result), void *arg);

#endif
