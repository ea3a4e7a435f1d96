// SPDX-License-Identifier: Apache-2.0
#include "engine/base/loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

int fl_loop_open(struct fl_loop *loop)
{
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return loop->epoll_fd < 0 ? -errno : 0;
}

void fl_loop_close(struct fl_loop *loop)
{
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    loop->epoll_fd = -1;
}

int fl_loop_watch(struct fl_loop *loop, struct fl_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

void fl_loop_unwatch(struct fl_loop *loop, struct fl_source *source)
{
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
}

struct fl_source *fl_loop_wait(struct fl_loop *loop, const struct timespec *timeout,
                               uint32_t *ret_events)
{
    struct epoll_event event;
    if (epoll_pwait2(loop->epoll_fd, &event, 1, timeout, NULL) != 1)
        return NULL;
    *ret_events = event.events;
    return event.data.ptr;
}
