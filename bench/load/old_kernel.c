// SPDX-License-Identifier: Apache-2.0
//
// A library to preload under valgrind, which knows older kernels only. Valgrind does not know
// epoll_pwait2, so this replaces it by epoll_pwait, in whole milliseconds, rounded up. Under
// valgrind a wait in io_uring_enter stops all threads and not just one, so this says that there is
// no io_uring, and the engine reads ahead without. Neither call belongs to the fault path, whose
// instructions are counted.
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
