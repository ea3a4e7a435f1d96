// SPDX-License-Identifier: Apache-2.0
#include "engine/base/fdpass.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/base/close_thread.h"

// include/uapi/asm-generic/socket.h of Linux 6.5; Debian 12 has the headers of 6.1.
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static void take_fds(struct fl_fds *fds, const struct cmsghdr *header)
{
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
        int fd = -1;
        memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
        if (fds->count < FL_FDS_MAX) {
            fds->fd[fds->count++] = fd;
        } else {
            fl_close_later(fd);
            fds->lost = true;
        }
    }
}

ssize_t fl_recv_fds(int socket, void *buf, size_t size, int flags, struct fl_fds *fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FL_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = buf, .iov_len = size};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t got = recvmsg(socket, &message, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0)
        return -errno;
    if (message.msg_flags & MSG_CTRUNC) // there is space for all that a message can have
        fds->no_room = true;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
            take_fds(fds, header);
    }
    return got;
}

static int send_line(int socket, const char *text, const int *fd)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), fd, sizeof(*fd));
    }
    ssize_t sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0)
        return -errno;
    return (size_t)sent == iov.iov_len ? 0 : -EIO;
}

int fl_send_greeting(int socket, const char *image, uint64_t bytes, int fd)
{
    char text[512];
    snprintf(text, sizeof(text), "{\"image\":\"%s\",\"bytes\":%" PRIu64 ",\"page_size\":4096}\n",
             image, bytes);
    return send_line(socket, text, &fd);
}

int fl_send_refusal(int socket, const char *reason)
{
    char text[512];
    snprintf(text, sizeof(text), "{\"error\":\"%s\"}\n", reason);
    return send_line(socket, text, NULL);
}

void fl_fds_close(struct fl_fds *fds)
{
    while (fds->count > 0) {
        fl_close_later(fds->fd[--fds->count]);
    }
}

void fl_peer_identify(int socket, int64_t *ret_pid, int *ret_pidfd)
{
    struct ucred credentials = {0};
    socklen_t length = sizeof(credentials);
    int pidfd = -1;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
        credentials.pid = 0;
    length = sizeof(pidfd);
    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) != 0)
        pidfd = credentials.pid > 0 ? (int)syscall(SYS_pidfd_open, credentials.pid, 0) : -1;
    *ret_pid = credentials.pid;
    *ret_pidfd = pidfd;
}
