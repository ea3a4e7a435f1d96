// SPDX-License-Identifier: Apache-2.0
//
// A library to preload under valgrind, which knows older kernels only. epoll_pwait2 is unknown to
// it: here it is epoll_pwait, in whole milliseconds, rounded up. A wait in io_uring_enter stops all
// threads, not one: here there is no io_uring, and the engine reads ahead without. For counting
// instructions of the fault path, which has no part in either.
#include <errno.h>
#include <sys/epoll.h>
#include <time.h>

#define EXPORTED __attribute__((visibility("default")))

struct io_uring;

int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags);

EXPORTED int epoll_pwait2(int epfd, struct epoll_event *events, int maxevents,
                          const struct timespec *timeout, const sigset_t *sigmask)
{
    int ms = -1;
    if (timeout != NULL)
        ms = (int)(timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000);
    return epoll_pwait(epfd, events, maxevents, ms, sigmask);
}

EXPORTED int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
    (void)entries;
    (void)ring;
    (void)flags;
    return -ENOSYS;
}
