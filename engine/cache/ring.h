// SPDX-License-Identifier: Apache-2.0
//
// io_uring, as the read-ahead uses it: reads, and a descriptor that wakes who waits for them. One
// thread.
#ifndef FAULTLINE_CACHE_RING_H
#define FAULTLINE_CACHE_RING_H

#include <stdbool.h>
#include <stdint.h>

struct fl_ring;

// event_fd: an eventfd of the caller's, for fl_ring_turn(). Up to `depth` reads may be on their
// way. -EPERM, -ENOSYS and others where io_uring is not to be had.
int fl_ring_open(int event_fd, unsigned depth, struct fl_ring **ret_ring);
// When no read is on its way.
void fl_ring_close(struct fl_ring *ring);

// At the next turn. `user` is not NULL.
void fl_ring_read(struct fl_ring *ring, int fd, void *buf, uint32_t bytes, uint64_t offset,
                  void *user);
// Starts what was asked for and calls done() for each read that has ended, with the bytes it
// brought or a negative errno. `wait`: until one has, or the eventfd is readable. True if any has.
bool fl_ring_turn(struct fl_ring *ring, bool wait, void (*done)(void *arg, void *user, int result),
                  void *arg);

#endif
