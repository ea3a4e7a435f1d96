// SPDX-License-Identifier: Apache-2.0
#include "engine/host/fuse_mounter.h"

#include <errno.h>
#include <libgen.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/fdpass.h"
#include "engine/base/unix_socket.h"

#define MAGIC 0x746e756f6d6c66ULL // "flmount"
enum { MAKE = 1, REMOVE = 2, WAIT_S = 12 };

struct order {
    uint64_t magic;
    uint32_t what;
    uint32_t connection; // of REMOVE
    char path[PATH_MAX];
};

struct answer {
    int32_t error;       // 0 or -errno
    uint32_t connection; // of MAKE; its descriptor comes along
    char reason[FL_FUSE_REASON];
};

// Neither side waits for the other for ever.
static void limit_waiting(int socket)
{
    const struct timeval limit = {.tv_sec = WAIT_S};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

// --- the mounter ---

static int send_answer(int socket, const struct answer *answer, int device)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)answer, sizeof(*answer)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (device >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &device, sizeof(int));
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static bool is_roots_alone(const char *path)
{
    char parent[PATH_MAX];
    struct stat status;
    snprintf(parent, sizeof(parent), "%s", path);
    return lstat(dirname(parent), &status) == 0 && S_ISDIR(status.st_mode) &&
           status.st_uid == geteuid() && (status.st_mode & 022) == 0;
}

static int refuse(char *reason, int error, const char *path, const char *what)
{
    snprintf(reason, FL_FUSE_REASON, "%s: %s", path, what);
    return error;
}

static int check(const struct order *order, const char *path, char *reason)
{
    if (order->magic != MAGIC || (order->what != MAKE && order->what != REMOVE))
        return refuse(reason, -EPROTO, path, "the order is none of this version");
    if (strcmp(order->path, path) != 0)
        return refuse(reason, -EACCES, path,
                      "the mounter mounts there only (faultline-files@.service)");
    return is_roots_alone(path)
               ? 0
               : refuse(reason, -EACCES, path, "it is in a directory that is not root's alone");
}

static int obey(const struct order *order, const char *path, const struct ucred *peer,
                struct answer *answer, int *ret_device)
{
    struct fl_fuse_place place = {.device = -1};
    int error = check(order, path, answer->reason);
    if (error)
        return error;
    if (order->what == REMOVE) {
        error = fl_fuse_place_remove(path, order->connection);
        return error ? refuse(answer->reason, error, path, "cannot unmount it") : 0;
    }
    error = fl_fuse_place_make(path, peer->uid, peer->gid, NULL, &place, answer->reason);
    *ret_device = place.device;
    answer->connection = place.connection;
    return error;
}

int fl_fuse_mounter_serve(int socket, const char *path, char reason[FL_FUSE_REASON])
{
    static struct answer answer;
    struct order order;
    struct ucred peer;
    socklen_t size = sizeof(peer);
    int device = -1;
    limit_waiting(socket);
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return refuse(reason, -errno, path, "no process is at the other end");
    if (recv(socket, &order, sizeof(order), 0) != (ssize_t)sizeof(order))
        return refuse(reason, -EPROTO, path, "no order has come");
    order.path[sizeof(order.path) - 1] = '\0';
    answer = (struct answer){0};
    answer.error = obey(&order, path, &peer, &answer, &device);
    int error = send_answer(socket, &answer, device);
    if (device >= 0)
        close(device); // if nobody has taken it, the connection ends with this
    if (error && order.what == MAKE && !answer.error)
        fl_fuse_place_remove(path, answer.connection);
    snprintf(reason, FL_FUSE_REASON, "%s", answer.reason);
    return answer.error ? answer.error : error;
}

// --- the server ---

static int ask(const struct order *order, int *ret_device, struct answer *ret_answer)
{
    struct fl_fds fds = {0};
    int socket = fl_socket_connect(FL_FUSE_MOUNTER_SOCKET, SOCK_SEQPACKET);
    if (socket < 0)
        return socket;
    limit_waiting(socket);
    ssize_t got = send(socket, order, sizeof(*order), MSG_NOSIGNAL);
    struct pollfd answered = {.fd = socket, .events = POLLIN};
    if (got != (ssize_t)sizeof(*order))
        got = got < 0 ? -errno : -EPROTO;
    else if (poll(&answered, 1, WAIT_S * 1000) != 1)
        got = -ETIMEDOUT;
    else
        got = fl_recv_fds(socket, ret_answer, sizeof(*ret_answer), 0, &fds);
    close(socket);
    if (got == (ssize_t)sizeof(*ret_answer) && fds.count == 1 && !ret_answer->error) {
        *ret_device = fds.fd[0];
        fds.count = 0;
    }
    fl_fds_close(&fds);
    ret_answer->reason[sizeof(ret_answer->reason) - 1] = '\0';
    return got == (ssize_t)sizeof(*ret_answer) ? 0 : got < 0 ? (int)got : -ECONNRESET;
}

static int order_it(struct order *order, const char *path, struct fl_fuse_place *ret_place,
                    char *reason)
{
    static struct answer answer;
    int device = -1;
    snprintf(order->path, sizeof(order->path), "%s", path);
    answer = (struct answer){0};
    int error = ask(order, &device, &answer);
    if (error)
        snprintf(reason, FL_FUSE_REASON, "the mounter at %s does not answer: %s",
                 FL_FUSE_MOUNTER_SOCKET, strerror(-error));
    else if (answer.error)
        snprintf(reason, FL_FUSE_REASON, "%s", answer.reason);
    else if (ret_place && device < 0)
        error = refuse(reason, -EPROTO, path, "the mounter has sent no descriptor");
    error = error ? error : answer.error;
    if (ret_place && !error)
        *ret_place = (struct fl_fuse_place){device, answer.connection};
    else if (device >= 0)
        close(device);
    return error;
}

int fl_fuse_mounter_make(const char *path, struct fl_fuse_place *ret_place,
                         char reason[FL_FUSE_REASON])
{
    struct order order = {.magic = MAGIC, .what = MAKE};
    return order_it(&order, path, ret_place, reason);
}

int fl_fuse_mounter_remove(const char *path, unsigned connection, char reason[FL_FUSE_REASON])
{
    struct order order = {.magic = MAGIC, .what = REMOVE, .connection = connection};
    return order_it(&order, path, NULL, reason);
}
