// SPDX-License-Identifier: Apache-2.0
//
// A library to preload under valgrind, which does not know epoll_pwait2: it waits in whole
// milliseconds, rounded up, with the call that valgrind knows. For counting instructions only.
#include <sys/epoll.h>
#include <time.h>

__attribute__((visibility("default"))) int epoll_pwait2(int epfd, struct epoll_event *events,
                                                        int maxevents,
                                                        const struct timespec *timeout,
                                                        const sigset_t *sigmask)
{
    int ms = -1;
    if (timeout != NULL)
        ms = (int)(timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000);
    return epoll_pwait(epfd, events, maxevents, ms, sigmask);
}
