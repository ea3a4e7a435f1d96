// SPDX-License-Identifier: Apache-2.0
#include "snapshot/index_link.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// The CPU time that a message may cost the child: 512 look-ups take a millisecond, and committing
// some GiB of pages takes seconds. Waiting for a disk or another transaction costs none.
enum { CPU_SECONDS = 5, CPU_SECONDS_COMMIT = 300, POLL_MS = 500, END_MS = 10000 };

static double cpu_seconds(pid_t pid)
{
    clockid_t clock;
    struct timespec used = {0, 0};
    if (clock_getcpuclockid(pid, &clock) == 0)
        clock_gettime(clock, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

// Kills the child if it has not ended by itself.
static void reap(struct fl_index_link *link, int patience_ms)
{
    struct pollfd wait = {.fd = pidfd_open(link->pid, 0), .events = POLLIN};
    if (wait.fd >= 0)
        while (poll(&wait, 1, patience_ms) < 0 && errno == EINTR) {
        }
    kill(link->pid, SIGKILL); // ours until it is waited for
    while (waitpid(link->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    if (wait.fd >= 0)
        close(wait.fd);
}

static void end_child(struct fl_index_link *link, int patience_ms)
{
    if (link->fd < 0)
        return;
    close(link->fd);
    link->fd = -1;
    reap(link, patience_ms);
}

void fl_index_link_end(struct fl_index_link *link)
{
    end_child(link, END_MS);
}

static int broken(struct fl_index_link *link)
{
    end_child(link, 0);
    return -EBADMSG;
}

// Waits until the link can be read or written. A child that computes for too long is in a loop that
// a damaged file has made.
static int wait_for(struct fl_index_link *link, short events, double most)
{
    struct pollfd wait = {.fd = link->fd, .events = events};
    double start = -1; // most answers come at once: the clock is read when one does not
    for (;;) {
        int n = poll(&wait, 1, POLL_MS);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
        double now = cpu_seconds(link->pid);
        start = start < 0 ? now : start;
        if (now - start > most)
            return broken(link);
    }
}

int fl_index_link_send(struct fl_index_link *link, const struct fl_index_request *request,
                       const void *more, size_t bytes)
{
    struct iovec parts[] = {{(void *)(uintptr_t)request, sizeof(*request)},
                            {(void *)(uintptr_t)more, bytes}};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = bytes > 0 ? 2 : 1};
    bool changes = request->op == FL_INDEX_RECORDS || request->op == FL_INDEX_COMMIT;
    link->most = changes ? CPU_SECONDS_COMMIT : CPU_SECONDS;
    while (link->fd >= 0) {
        if (sendmsg(link->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
            return 0;
        if (errno != EINTR && errno != EAGAIN && errno != ENOBUFS)
            return broken(link);
        int r = wait_for(link, POLLOUT, CPU_SECONDS_COMMIT); // what was sent before may be changes
        if (r < 0)
            return r;
    }
    return -EBADMSG;
}

int fl_index_link_receive(struct fl_index_link *link, int *ret_number, void *ret_more, size_t bytes)
{
    struct iovec parts[] = {{ret_number, sizeof(*ret_number)}, {ret_more, bytes}};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = bytes > 0 ? 2 : 1};
    int r = link->fd < 0 ? -EBADMSG : wait_for(link, POLLIN, link->most);
    if (r < 0)
        return r;
    ssize_t got;
    do {
        got = recvmsg(link->fd, &header, 0);
    } while (got < 0 && errno == EINTR);
    size_t want = sizeof(*ret_number);
    if (got >= (ssize_t)want && *ret_number == 0)
        want += bytes;
    return got == (ssize_t)want ? 0 : broken(link);
}

int fl_index_link_start(const char *dir, struct fl_index_link *ret_link)
{
    int fds[2];
    int opened = 0;
    struct fl_index_link link = {.fd = -1, .most = CPU_SECONDS};
    pid_t parent = getpid();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    link.pid = fork();
    if (link.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); // a loop does not see that the link is closed
        if (getppid() != parent)
            _exit(1);
        fl_index_child(dir, fds[1]);
    }
    int error = errno;
    close(fds[1]);
    if (link.pid < 0) {
        close(fds[0]);
        return -error;
    }
    link.fd = fds[0];
    int r = fl_index_link_receive(&link, &opened, NULL, 0);
    if (r == 0 && opened < 0) {
        fl_index_link_end(&link);
        r = opened;
    }
    if (r == 0)
        *ret_link = link;
    return r;
}
