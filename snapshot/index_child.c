// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "snapshot/index_link.h"

struct child {
    int fd;
    struct fl_lmdb *lmdb;
    int error; // the first since BEGIN
    _Alignas(8) uint8_t message[FL_INDEX_MESSAGE_MAX];
    struct fl_disk_place places[FL_INDEX_GET_MAX];
};

static void answer(const struct child *child, int number, size_t places)
{
    struct iovec parts[] = {{&number, sizeof(number)},
                            {(void *)(uintptr_t)child->places, places * sizeof(child->places[0])}};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = places > 0 ? 2 : 1};
    if (sendmsg(child->fd, &header, MSG_NOSIGNAL) < 0)
        _exit(1); // the other end is gone
}

static int look_up(struct child *child, const struct fl_identity *identities, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        int r = fl_lmdb_get(child->lmdb, &identities[i], &child->places[i]);
        if (r == -ENOENT)
            child->places[i].pack_id = 0;
        else if (r < 0)
            return r;
    }
    return 0;
}

static void change(struct child *child, enum fl_record_change what, const struct fl_record *records,
                   uint32_t count)
{
    for (uint32_t i = 0; child->error == 0 && i < count; i++)
        child->error = fl_lmdb_change(child->lmdb, what, &records[i]);
}

static int commit(struct child *child, const struct fl_index_request *request)
{
    int r = child->error;
    if (r == 0)
        r = fl_lmdb_set_pack(child->lmdb, request->pack_id, request->pages, request->known);
    if (r == 0)
        r = fl_lmdb_commit(child->lmdb);
    fl_lmdb_abort(child->lmdb);
    return r;
}

static void serve(struct child *child, const struct fl_index_request *request)
{
    const void *more = child->message + sizeof(*request);
    switch ((enum fl_index_op)request->op) {
    case FL_INDEX_VIEW:
        answer(child, fl_lmdb_view(child->lmdb), 0);
        break;
    case FL_INDEX_GET: {
        int r = look_up(child, more, request->count);
        answer(child, r, r == 0 ? request->count : 0);
        break;
    }
    case FL_INDEX_HAS:
        answer(child, fl_lmdb_has_pack(child->lmdb, request->pack_id), 0);
        break;
    case FL_INDEX_BEGIN:
        child->error = fl_lmdb_begin(child->lmdb, request->grow);
        break;
    case FL_INDEX_RECORDS:
        change(child, (enum fl_record_change)request->change, more, request->count);
        break;
    case FL_INDEX_COMMIT:
        answer(child, commit(child, request), 0);
        break;
    }
}

// The child keeps no file of its parent but the socket, and takes no signal that is meant for the
// parent. It writes no core and no output: the parent reports how the child ended.
static int prepare(int fd)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
    const struct rlimit none = {0, 0};
    sigset_t empty;
    for (size_t i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
        signal(fatal[i], SIG_DFL);
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&empty);
    sigprocmask(SIG_SETMASK, &empty, NULL);
    setrlimit(RLIMIT_CORE, &none);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; null >= 0 && i <= STDERR_FILENO; i++)
        dup2(null, i);
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (moved != STDERR_FILENO + 1 && moved >= 0)
        moved = dup3(moved, STDERR_FILENO + 1, O_CLOEXEC);
    if (moved >= 0)
        close_range(STDERR_FILENO + 2, ~0U, 0);
    return moved;
}

_Noreturn void fl_index_child(const char *dir, int fd)
{
    static struct child child; // this process has one
    struct fl_index_request request;
    child.fd = prepare(fd);
    int r = child.fd < 0 ? -errno : fl_lmdb_open(dir, &child.lmdb);
    if (child.fd < 0)
        _exit(1);
    answer(&child, r, 0);
    while (r == 0) {
        ssize_t got = recv(child.fd, child.message, sizeof(child.message), 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < (ssize_t)sizeof(request))
            break;
        memcpy(&request, child.message, sizeof(request));
        serve(&child, &request);
    }
    fl_lmdb_close(child.lmdb);
    _exit(0);
}
