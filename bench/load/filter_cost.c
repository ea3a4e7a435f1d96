// SPDX-License-Identifier: Apache-2.0
//
// What the filters of system calls cost a call: filter_cost [CALLS]. Nanoseconds of an ioctl() that
// fails at once and of an epoll_pwait2() that returns at once: without a filter, with the keeper's,
// with both, and with one more that looks at the request of each ioctl(), as none does.
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/call_filter.h"
#include "engine/base/clock.h"

#include <linux/userfaultfd.h>

enum { CALLS = 2000000, ROUNDS = 7, STATES = 4 };

static const char *const names[STATES] = {"none", "keeper", "keeper and engine",
                                          "... and a look at each ioctl"};

static int look_at_ioctl(void)
{
    const unsigned long requests[] = {UFFDIO_COPY,     UFFDIO_ZEROPAGE, UFFDIO_WAKE,
                                      UFFDIO_REGISTER, UFFDIO_CONTINUE, UFFDIO_API};
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int error = filter ? 0 : -ENOMEM;
    // Refused is what is none of them: one comparison each.
    struct scmp_arg_cmp other[sizeof(requests) / sizeof(requests[0])];
    for (unsigned i = 0; !error && i < sizeof(requests) / sizeof(requests[0]); i++) {
        other[i] = SCMP_A1(SCMP_CMP_EQ, requests[i], 0);
        error = seccomp_rule_add_array(filter, SCMP_ACT_ERRNO(EPERM + i), SCMP_SYS(ioctl), 1,
                                       &other[i]);
    }
    if (!error)
        error = seccomp_load(filter);
    if (filter)
        seccomp_release(filter);
    return error;
}

static int install(int state)
{
    const struct fl_call_filter_options options = {.mode = FL_CALL_FILTER_ON};
    int error = state > 0 ? fl_call_filter_install(FL_CALL_FILTER_KEEPER, &options) : 0;
    if (!error && state > 1)
        error = fl_call_filter_install(FL_CALL_FILTER_ENGINE, &options);
    return error;
}

static double per_call(unsigned calls, bool wait, int epoll_fd)
{
    struct epoll_event event;
    const struct timespec none = {0};
    uint64_t start = fl_now();
    for (unsigned i = 0; i < calls; i++) {
        if (wait)
            epoll_pwait2(epoll_fd, &event, 1, &none, NULL);
        else
            ioctl(epoll_fd, FIONREAD, NULL);
    }
    return (double)(fl_now() - start) / calls;
}

static void measure(int state, unsigned calls)
{
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    // Loaded before the engine's filter, which allows no call that loads another.
    int error = state == STATES - 1 ? look_at_ioctl() : 0;
    if (!error)
        error = install(state);
    if (error) {
        fprintf(stderr, "filter_cost: no filter: %s\n", strerror(-error));
        _exit(1);
    }
    double asked = per_call(calls, false, epoll_fd);
    printf("%-30s ioctl %6.1f ns  epoll_pwait2 %6.1f ns\n", names[state], asked,
           per_call(calls, true, epoll_fd));
    fflush(stdout);
    _exit(0);
}

int main(int argc, char **argv)
{
    unsigned calls = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : CALLS;
    for (int round = 0; round < ROUNDS; round++) {
        for (int state = 0; state < STATES; state++) {
            int status = 0;
            pid_t pid = fork();
            if (pid == 0)
                measure(state, calls);
            if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
                return 1;
        }
    }
    return 0;
}
