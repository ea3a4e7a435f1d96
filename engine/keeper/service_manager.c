// SPDX-License-Identifier: Apache-2.0
#include "engine/keeper/service_manager.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "engine/base/clock.h"

// The last wait for room was in vain.
static bool stuck;

bool fl_sm_present(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    return path && *path;
}

bool fl_sm_keeps(void)
{
    const char *limit = getenv("FDSTORE");
    const char *ours = getenv("FAULTLINE_FDSTORE");
    if (!fl_sm_present())
        return false;
    return limit ? strtoul(limit, NULL, 10) > 0 : ours && strcmp(ours, "1") == 0;
}

static int notify_address(struct sockaddr_un *ret_address, socklen_t *ret_size)
{
    const char *path = getenv("NOTIFY_SOCKET");
    if (!path || !*path)
        return -ENOTCONN;
    size_t length = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || length >= sizeof ret_address->sun_path)
        return -EAFNOSUPPORT;
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret_address->sun_path, path, length);
    size_t end = length + 1; // a path with its final 0
    if (path[0] == '@') {    // an abstract name, which has none
        ret_address->sun_path[0] = 0;
        end = length;
    }
    *ret_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + end);
    return 0;
}

// Connected, for only then does poll() know whether the other end has room. Anew for each message:
// the manager may have been replaced since the last.
static int notify_connect(void)
{
    struct sockaddr_un address;
    socklen_t size;
    int r = notify_address(&address, &size);
    if (r < 0)
        return r;
    int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0)
        return -errno;
    if (connect(s, (struct sockaddr *)&address, size) == 0)
        return s;
    r = -errno;
    close(s);
    return r;
}

// Until something of `events`, or the other end's end, is there, or the deadline has passed.
static bool await(int fd, short events, uint64_t deadline)
{
    struct pollfd p = {.fd = fd, .events = events};
    for (;;) {
        struct timespec left = fl_until(fl_now(), deadline);
        int n = ppoll(&p, 1, &left, NULL);
        if (n >= 0 || errno != EINTR)
            return n > 0;
    }
}

// The deadline counts each time round: other senders may take the room that was there.
static int send_when_room(int s, const struct msghdr *message, uint64_t deadline)
{
    for (;;) {
        if (sendmsg(s, message, MSG_NOSIGNAL) >= 0)
            return 0;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return -errno;
        if (fl_now() >= deadline || !await(s, POLLOUT, deadline))
            return -EAGAIN;
    }
}

// Sends state, with fd unless it is -1.
static int say(const char *state, int fd, uint64_t wait_ms)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec data = {.iov_base = (void *)(uintptr_t)state, .iov_len = strlen(state)};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.header = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    }
    int s = notify_connect();
    if (s < 0)
        return s;
    uint64_t wait_ns = stuck ? 0 : wait_ms * FL_NS_PER_MS;
    int r = send_when_room(s, &message, fl_now() + wait_ns);
    close(s);
    stuck = r == -EAGAIN;
    return r;
}

int fl_sm_notify(const char *state)
{
    return say(state, -1, FL_SM_WAIT_MS);
}

static bool is_name(const char *name)
{
    for (const char *c = name; *c; c++)
        if (*c < ' ' || *c > '~' || *c == ':' || c - name >= FL_SM_NAME_MAX)
            return false;
    return *name;
}

int fl_sm_store(const char *name, int fd)
{
    char text[FL_SM_NAME_MAX + 64];
    if (!is_name(name))
        return -EINVAL;
    if (fd < 0)
        return -EBADF;
    snprintf(text, sizeof text, "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
    return say(text, fd, FL_SM_WAIT_MS);
}

int fl_sm_remove(const char *name)
{
    char text[FL_SM_NAME_MAX + 64];
    if (!is_name(name))
        return -EINVAL;
    snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%s", name);
    return say(text, -1, FL_SM_WAIT_MS);
}

// The manager closes the pipe's end that comes with the message when it is the message's turn.
int fl_sm_barrier(uint64_t timeout_ms)
{
    uint64_t deadline = fl_now() + timeout_ms * FL_NS_PER_MS;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    int r = say("BARRIER=1", ends[1], timeout_ms);
    close(ends[1]);
    if (r == 0 && !await(ends[0], 0, deadline))
        r = -ETIMEDOUT;
    close(ends[0]);
    return r;
}

uint64_t fl_sm_watchdog_ms(void)
{
    uint64_t us = 0;
    if (sd_watchdog_enabled(0, &us) <= 0)
        return 0;
    return us >= 2000 ? us / 2000 : 1;
}

int fl_sm_inherit(void (*fn)(void *arg, const char *name, int fd), void *arg)
{
    char **names = NULL;
    int count = sd_listen_fds_with_names(1, &names);
    for (int i = 0; i < count; i++) {
        fn(arg, names[i], SD_LISTEN_FDS_START + i);
        free(names[i]);
    }
    free(names);
    return count;
}
