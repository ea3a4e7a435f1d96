// SPDX-License-Identifier: Apache-2.0
//
// Each order has a number (`id`), which its answer repeats: an answer that came too late is not
// taken for that of the next order.
#include "tools/verbs/qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/unix_socket.h"

enum { TICK_MS = 100, ROOM = 1 << 16, LINE_MAX_BYTES = 16 << 20 };

// --- lines ---

// Waits until something has come. 0 or -errno.
static int await_bytes(const struct qmp *qmp, uint64_t deadline)
{
    struct pollfd poll_fd = {.fd = qmp->fd, .events = POLLIN};
    for (;;) {
        uint64_t now = fl_now();
        if (now >= deadline)
            return -ETIMEDOUT;
        if (qmp->gives_up && qmp->gives_up())
            return -ECANCELED;
        uint64_t left = (deadline - now) / FL_NS_PER_MS + 1;
        int polled = poll(&poll_fd, 1, left < TICK_MS ? (int)left : TICK_MS);
        if (polled < 0 && errno != EINTR)
            return -errno;
        if (polled > 0)
            return 0;
    }
}

static int make_room(struct qmp *qmp)
{
    size_t room = qmp->room ? 2 * qmp->room : ROOM;
    if (qmp->room - qmp->used > 1)
        return 0;
    char *text = room <= LINE_MAX_BYTES ? realloc(qmp->text, room) : NULL;
    if (!text)
        return room <= LINE_MAX_BYTES ? -ENOMEM : -EPROTO;
    qmp->text = text;
    qmp->room = room;
    return 0;
}

static int receive(struct qmp *qmp, uint64_t deadline)
{
    int error = make_room(qmp);
    if (!error)
        error = await_bytes(qmp, deadline);
    if (error)
        return error;
    ssize_t got = recv(qmp->fd, qmp->text + qmp->used, qmp->room - qmp->used, MSG_DONTWAIT);
    if (got == 0)
        return -ECONNRESET;
    if (got < 0)
        return errno == EINTR || errno == EAGAIN ? 0 : -errno;
    qmp->used += (size_t)got;
    return 0;
}

// The next line as an object, which the caller owns. 0 or -errno.
static int next_object(struct qmp *qmp, uint64_t deadline, json_t **ret_object)
{
    char *end;
    while (!(end = qmp->used ? memchr(qmp->text, '\n', qmp->used) : NULL)) {
        int error = receive(qmp, deadline);
        if (error)
            return error;
    }
    size_t length = (size_t)(end - qmp->text) + 1;
    *ret_object = json_loadb(qmp->text, length, 0, NULL);
    memmove(qmp->text, qmp->text + length, qmp->used - length);
    qmp->used -= length;
    return json_is_object(*ret_object) ? 0 : (json_decref(*ret_object), -EPROTO);
}

static int send_all(const struct qmp *qmp, const char *text, int fd)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec part = {.iov_base = (void *)text, .iov_len = strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    }
    ssize_t sent;
    while ((sent = sendmsg(qmp->fd, &message, MSG_NOSIGNAL)) < 0 && errno == EINTR) {
    }
    if (sent < 0)
        return errno == EPIPE ? -ECONNRESET : -errno;
    return (size_t)sent == part.iov_len ? 0 : -EIO; // an order is small, and the socket empty
}

// --- orders ---

static int say_no_answer(const struct qmp *qmp, const char *command, int error,
                         struct fl_error *ret_error)
{
    if (error == -ETIMEDOUT)
        return fl_fail_plain(ret_error, error, "the QEMU at %s has not answered to '%s' in time",
                             qmp->path, command);
    if (error == -ECANCELED)
        return fl_fail_plain(ret_error, error, "interrupted");
    if (error == -ECONNRESET)
        return fl_fail_plain(ret_error, error,
                             "the QEMU at %s has ended, or hung up, when it was told '%s'",
                             qmp->path, command);
    return fl_fail(ret_error, error, "the QEMU at %s cannot be told '%s'", qmp->path, command);
}

static bool is_answer(const struct qmp *qmp, const json_t *object)
{
    return json_integer_value(json_object_get(object, "id")) == (json_int_t)qmp->number &&
           (json_object_get(object, "return") || json_object_get(object, "error"));
}

static int take_answer(const struct qmp *qmp, const char *command, const json_t *object,
                       json_t **ret_answer, struct fl_error *ret_error)
{
    const json_t *fault = json_object_get(object, "error");
    const char *why = json_string_value(json_object_get(fault, "desc"));
    if (fault)
        return fl_fail_plain(ret_error, -EREMOTEIO, "the QEMU at %s refuses '%s': %s", qmp->path,
                             command, why ? why : "it gives no reason");
    if (ret_answer)
        *ret_answer = json_incref(json_object_get(object, "return"));
    return 0;
}

int qmp_order(struct qmp *qmp, const char *command, json_t *arguments, int fd, unsigned timeout_ms,
              json_t **ret_answer, struct fl_error *ret_error)
{
    uint64_t deadline = fl_now() + timeout_ms * FL_NS_PER_MS;
    json_t *order = json_pack("{s:s, s:i}", "execute", command, "id", (int)++qmp->number);
    if (order && arguments)
        json_object_set_new(order, "arguments", arguments);
    else
        json_decref(arguments);
    char *text = order ? json_dumps(order, JSON_COMPACT) : NULL;
    json_decref(order);
    int error = text ? send_all(qmp, text, fd) : -ENOMEM;
    free(text);
    while (!error) {
        json_t *object = NULL;
        error = next_object(qmp, deadline, &object);
        if (!error && is_answer(qmp, object)) {
            error = take_answer(qmp, command, object, ret_answer, ret_error);
            json_decref(object);
            return error;
        }
        json_decref(error ? NULL : object);
    }
    return say_no_answer(qmp, command, error, ret_error);
}

// --- the connection ---

int qmp_greet(struct qmp *qmp, unsigned timeout_ms, struct fl_error *ret_error)
{
    json_t *greeting = NULL;
    int major;
    int minor;
    int micro;
    int error = next_object(qmp, fl_now() + timeout_ms * FL_NS_PER_MS, &greeting);
    if (error == -ETIMEDOUT)
        return fl_fail_plain(ret_error, error,
                             "the QEMU at %s does not greet: another client has this QMP socket, "
                             "which serves one at a time (give QEMU a second one with -qmp), or it "
                             "is none",
                             qmp->path);
    if (error == -ECANCELED)
        return fl_fail_plain(ret_error, error, "interrupted");
    if (!error && json_unpack(greeting, "{s:{s:{s:{s:i, s:i, s:i}}}}", "QMP", "version", "qemu",
                              "major", &major, "minor", &minor, "micro", &micro) != 0)
        error = -EPROTO;
    if (!error)
        snprintf(qmp->version, sizeof(qmp->version), "%d.%d.%d", major, minor, micro);
    json_decref(greeting);
    if (error)
        return fl_fail_plain(ret_error, error, "what listens at %s is no QEMU's QMP", qmp->path);
    return qmp_order(qmp, "qmp_capabilities", NULL, -1, timeout_ms, NULL, ret_error);
}

int qmp_connect(const char *path, struct qmp *ret_qmp, struct fl_error *ret_error)
{
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);
    *ret_qmp = (struct qmp){.fd = fl_socket_connect(path, SOCK_STREAM), .path = path};
    if (ret_qmp->fd < 0)
        return fl_fail_plain(ret_error, ret_qmp->fd, "no QEMU listens at %s: %s", path,
                             fl_socket_why(path, ret_qmp->fd));
    if (getsockopt(ret_qmp->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return fl_fail(ret_error, -errno, "the process that listens at %s is not known", path);
    ret_qmp->pid = peer.pid;
    return 0;
}

void qmp_close(struct qmp *qmp)
{
    if (qmp->fd >= 0)
        close(qmp->fd);
    free(qmp->text);
    *qmp = (struct qmp){.fd = -1};
}
