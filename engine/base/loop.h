// SPDX-License-Identifier: Apache-2.0
//
// The descriptors that one thread waits for, and what it calls when one of them is ready. A loop
// belongs to the thread that waits on it; nothing here may be called by another.
#ifndef FAULTLINE_BASE_LOOP_H
#define FAULTLINE_BASE_LOOP_H

#include <stdint.h>
#include <time.h>

// A descriptor in a loop; its owner embeds it. It may be freed in its own `ready` only.
struct fl_source {
    int fd;
    void (*ready)(struct fl_source *source, uint32_t events);
};

struct fl_loop {
    int epoll_fd; // -1: not open
};

// 0 or -errno.
int fl_loop_open(struct fl_loop *loop);
void fl_loop_close(struct fl_loop *loop); // one that is not open is allowed

// Waits for EPOLL* events of the source from now on; 0 or -errno.
int fl_loop_watch(struct fl_loop *loop, struct fl_source *source, uint32_t events);
void fl_loop_unwatch(struct fl_loop *loop, struct fl_source *source);

// Waits for one event, for so long at most (NULL: without end). Returns the source that is ready,
// for the caller to call its `ready` with *ret_events; NULL if none is. One at a time: what one
// `ready` frees cannot be in the next event.
struct fl_source *fl_loop_wait(struct fl_loop *loop, const struct timespec *timeout,
                               uint32_t *ret_events);

#endif
