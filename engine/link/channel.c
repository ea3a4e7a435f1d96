// SPDX-License-Identifier: Apache-2.0
#include "engine/link/channel.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD = offsetof(struct fl_message, text), RETRY_MS = 1 };

union fd_space {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(FL_CHANNEL_FDS * sizeof(int))];
};

// The descriptors of the mask, side by side.
static unsigned gather_fds(const struct fl_message *message, const int *fds, int *ret_fds)
{
    unsigned count = 0;
    for (unsigned i = 0; i < FL_CHANNEL_FDS; i++) {
        if (message->mask & 1U << i)
            ret_fds[count++] = fds[i];
    }
    return count;
}

static int send_once(int channel, const struct msghdr *header, bool wait)
{
    for (;;) {
        if (sendmsg(channel, header, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT)) >= 0)
            return 0;
        // Too many descriptors are on their way to readers: those take them out.
        bool later =
            errno == ETOOMANYREFS || errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM;
        if (later && !wait)
            return -EAGAIN;
        if (later)
            poll(NULL, 0, RETRY_MS);
        else if (errno != EINTR)
            return -errno;
    }
}

int fl_channel_send(int channel, const struct fl_message *message, const int *fds, bool wait)
{
    int list[FL_CHANNEL_FDS];
    union fd_space space = {0};
    size_t text = strnlen(message->text, sizeof(message->text) - 1);
    struct iovec iov = {.iov_base = (void *)message, .iov_len = HEAD + text + 1};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    unsigned count = gather_fds(message, fds, list);
    if (count > 0) {
        header.msg_control = space.bytes;
        header.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(rights), list, count * sizeof(int));
    }
    return send_once(channel, &header, wait);
}

// What came along, side by side; as many as there is room for.
static unsigned received_fds(struct msghdr *header, int *ret_fds)
{
    unsigned count = 0;
    for (struct cmsghdr *at = CMSG_FIRSTHDR(header); at; at = CMSG_NXTHDR(header, at)) {
        if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS)
            continue;
        size_t here = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(ret_fds + count, CMSG_DATA(at), here * sizeof(int));
        count += (unsigned)here;
    }
    return count;
}

// From side by side to their slots. -EPROTO or -EMFILE (all closed) if they are not what the mask
// says.
static int scatter_fds(const struct fl_message *message, const int *list, unsigned count, bool lost,
                       int *ret_fds)
{
    unsigned used = 0;
    for (unsigned i = 0; i < FL_CHANNEL_FDS; i++) {
        bool here = message->mask & 1U << i && used < count;
        ret_fds[i] = here ? list[used++] : -1;
    }
    if (!lost && used == count && count == (unsigned)__builtin_popcount(message->mask))
        return 0;
    fl_channel_close_fds(ret_fds);
    while (used < count)
        close(list[used++]);
    return lost ? -EMFILE : -EPROTO;
}

// A channel that came over a socket does not block by itself. The end of a peer that has left
// something unread is ECONNRESET, once, before what it had sent: that is to be had all the same.
static ssize_t receive_once(int channel, struct msghdr *header, bool wait)
{
    struct pollfd poll_fd = {.fd = channel, .events = POLLIN};
    for (;;) {
        ssize_t got = recvmsg(channel, header, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
        bool scarce = got < 0 && (errno == ENOMEM || errno == ENOBUFS); // of kernel memory
        if (scarce)
            errno = EAGAIN;
        if (scarce && wait)
            poll(NULL, 0, RETRY_MS);
        else if (got < 0 && errno == EAGAIN && wait)
            poll(&poll_fd, 1, -1);
        else if (got >= 0 || (errno != EINTR && errno != ECONNRESET))
            return got;
    }
}

int fl_channel_receive(int channel, struct fl_message *ret_message, int ret_fds[FL_CHANNEL_FDS],
                       bool wait)
{
    int list[FL_CHANNEL_FDS];
    union fd_space space;
    struct iovec iov = {.iov_base = ret_message, .iov_len = sizeof(*ret_message)};
    struct msghdr header = {.msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = space.bytes,
                            .msg_controllen = sizeof(space.bytes)};
    ssize_t got = receive_once(channel, &header, wait);
    if (got <= 0)
        return got == 0 ? 0 : -errno;
    unsigned count = received_fds(&header, list);
    bool whole = got > HEAD && !(header.msg_flags & MSG_TRUNC) &&
                 ((const char *)ret_message)[got - 1] == '\0';
    if (!whole)
        ret_message->mask = 0;
    int error = scatter_fds(ret_message, list, count, header.msg_flags & MSG_CTRUNC, ret_fds);
    if (whole)
        return error ? error : 1;
    return -EPROTO;
}

void fl_channel_close_fds(int fds[FL_CHANNEL_FDS])
{
    for (unsigned i = 0; i < FL_CHANNEL_FDS; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

static uint32_t record_mask(const struct fl_record_view *record, uint32_t from)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < FL_CHANNEL_FDS && from + i < record->slots; i++)
        mask |= record->fd[from + i] >= 0 ? 1U << i : 0;
    return mask;
}

int fl_channel_send_record(int channel, enum fl_message_type type,
                           const struct fl_record_view *record, uint64_t other, uint32_t *from,
                           bool wait)
{
    struct fl_message message = {.type = type,
                                 .kind = record->kind,
                                 .id = record->id,
                                 .value = record->value,
                                 .other = other,
                                 .slots = record->slots};
    do {
        message.first = *from;
        message.mask = record_mask(record, *from);
        int error = fl_channel_send(channel, &message, record->fd + *from, wait);
        if (error)
            return error;
        *from += FL_CHANNEL_FDS;
    } while (*from < record->slots);
    return 0;
}
