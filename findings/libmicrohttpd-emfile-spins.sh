#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# libmicrohttpd in its epoll mode, when a client connects and the process has no descriptor left.
#
# With:     libmicrohttpd 0.9.75-6 (Debian 12), Linux 6.18.44, x86-64.
# Guess:    it stops listening, or waits for a while, before it calls accept() again.
# Behaviour: it does so only while it has connections of its own that could end. Without any, the listening socket stays
#           readable and it tries again at once, for ever: one idle client has the thread turn at full speed, and
#           each turn is a line of its log.
# Output seen (half of the lines are "Error accepting connection: Too many open files"):
#           thread: 0.77 s of CPU time and 1005214 log lines in 1 s
#           own: 0.86 s of CPU time and 651594 log lines in 1 s
#           Hit process or system resource limit at FIRST connection. This is really bad as there is no sane way to
#           proceed. Will try busy waiting for system resources to become magically available.
#           ("thread": with MHD_USE_INTERNAL_POLLING_THREAD; "own": a loop of one's own that calls MHD_run())
# So:       whoever drives it must take it out of the loop for a while when the process has no descriptor left
#           (engine/control/door.c), and bound what it logs.
#
# Exits with 0 if it is still so: more than 10,000 turns a second.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/full.c" <<'C'
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static atomic_long lines;
static char text[600];

static void count_line(void *context, const char *format, va_list arguments)
{
    (void)context;
    if (atomic_fetch_add(&lines, 1) < 2)
        vsnprintf(text + strlen(text), sizeof(text) - strlen(text), format, arguments);
}

static enum MHD_Result answer(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *body, size_t *size, void **state)
{
    (void)context, (void)connection, (void)url, (void)method, (void)version, (void)body, (void)size, (void)state;
    return MHD_NO;
}

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    int own_loop = argc > 1 && strcmp(argv[1], "own") == 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(listener, (void *)&address, size) != 0 || listen(listener, 10) != 0 ||
        getsockname(listener, (void *)&address, &size) != 0)
        return 77;
    unsigned flags = MHD_USE_EPOLL | MHD_USE_ERROR_LOG | (own_loop ? 0 : MHD_USE_INTERNAL_POLLING_THREAD);
    struct MHD_Daemon *daemon = MHD_start_daemon(flags, 0, NULL, NULL, answer, NULL, MHD_OPTION_EXTERNAL_LOGGER,
                                                 count_line, NULL, MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_END);
    if (!daemon)
        return 77;
    struct pollfd ready = {.events = POLLIN};
    if (own_loop)
        ready.fd = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct rlimit few = {64, 64};
    if (setrlimit(RLIMIT_NOFILE, &few) != 0)
        return 77;
    while (dup(client) >= 0) // until no number is left
        ;
    double began = now(CLOCK_MONOTONIC), used = now(CLOCK_PROCESS_CPUTIME_ID);
    if (connect(client, (void *)&address, size) != 0)
        return 77;
    while (now(CLOCK_MONOTONIC) - began < 1) {
        struct timespec pause = {0, 10000000};
        if (!own_loop)
            nanosleep(&pause, NULL);
        else if (poll(&ready, 1, 100) == 1)
            MHD_run(daemon);
    }
    printf("%.2f s of CPU time and %ld log lines in 1 s\n", now(CLOCK_PROCESS_CPUTIME_ID) - used, atomic_load(&lines));
    printf("%s", text);
    return atomic_load(&lines) > 10000 ? 0 : 1;
}
C
gcc -pthread -o "$dir/full" "$dir/full.c" -lmicrohttpd
for mode in thread own; do
    echo -n "$mode: "
    "$dir/full" "$mode"
done
