// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. Each client of the socket is a `struct visitor`, which says one thing.
// HELLO: it is a new keeper, and its socket becomes the channel, or goes on to the keeper that it
// is to replace. ADOPT and MAY_ADOPT: it is watched
// no more, and answer_visitor(), which is called once at any time later, frees it. CAPTURE: its
// socket goes on as the line of a capture (accept/captures.h). Anything else: it is cut off.
#include "engine/takeover/keeper_socket.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/captures.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/link/degraded.h"
#include "engine/link/inherited_sockets.h"
#include "engine/link/keeper_link.h"
#include "engine/takeover/takeover.h"

struct fl_keeper_socket {
    struct fl_source source;
    struct fl_takeover *takeover;
    struct fl_listening listening;
    bool paused; // it is not watched
    char path[PATH_MAX];
};

struct visitor {
    struct fl_source source;
    struct fl_takeover *takeover;
};

static void visitor_leave(struct visitor *visitor)
{
    fl_loop_unwatch(visitor->takeover->acceptor->loop, &visitor->source);
    close(visitor->source.fd);
    free(visitor);
}

// The visitor may have left meanwhile.
static void answer_visitor(void *arg, int error, const char *text)
{
    struct visitor *visitor = arg;
    struct fl_message message = {.type = FL_MESSAGE_ANSWER, .error = error};
    snprintf(message.text, sizeof(message.text), "%s", text);
    fl_channel_send(visitor->source.fd, &message, NULL, false);
    close(visitor->source.fd);
    free(visitor);
}

// What becomes of it is between the two keepers; this engine hears of it by the new one's messages.
static void replacing_keeper(struct visitor *visitor)
{
    struct fl_acceptor *acceptor = visitor->takeover->acceptor;
    fl_loop_unwatch(acceptor->loop, &visitor->source);
    int error = fl_keeper_link_replace_keeper(acceptor->engine->keeper_link, visitor->source.fd);
    if (error) {
        answer_visitor(visitor, error, "the keeper has just gone");
        return;
    }
    close(visitor->source.fd);
    free(visitor);
}

static void new_keeper(struct visitor *visitor, int log)
{
    struct fl_acceptor *acceptor = visitor->takeover->acceptor;
    fl_loop_unwatch(acceptor->loop, &visitor->source);
    int error = fl_keeper_link_change_keeper(acceptor->engine->keeper_link, visitor->source.fd);
    if (error) {
        answer_visitor(visitor, error,
                       error == -EBUSY ? "the engine has a keeper" : strerror(-error));
        return;
    }
    fl_degraded_tell(&acceptor->engine->degraded);
    if (log >= 0)
        fl_log_move(log); // the reader of the keeper's log reads ours there, too
    fl_log(FL_LOG_INFO, "event=ready pid=%d vms=%u reason=\"a new keeper has come\"", (int)getpid(),
           acceptor->engine->vms.count);
    free(visitor);
}

static void new_capture(struct visitor *visitor, const struct fl_message *message)
{
    struct fl_acceptor *acceptor = visitor->takeover->acceptor;
    fl_loop_unwatch(acceptor->loop, &visitor->source);
    fl_captures_take(acceptor->engine->captures, message, visitor->source.fd);
    free(visitor);
}

static void visitor_ready(struct fl_source *source, uint32_t events)
{
    (void)events;
    struct visitor *visitor = caa_container_of(source, struct visitor, source);
    static struct fl_message message;
    int fds[FL_CHANNEL_FDS];
    int got = fl_channel_receive(source->fd, &message, fds, false);
    if (got == -EAGAIN)
        return;
    if (got == 1 && message.type == FL_MESSAGE_HELLO && message.value == FL_HELLO_REPLACE &&
        fl_keeper_link_any(visitor->takeover->acceptor->engine->keeper_link)) {
        replacing_keeper(visitor);
    } else if (got == 1 && message.type == FL_MESSAGE_HELLO) {
        new_keeper(visitor, fds[0]);
    } else if (got == 1 && message.type == FL_MESSAGE_ADOPT) {
        fl_loop_unwatch(visitor->takeover->acceptor->loop, source); // one order each
        fl_takeover_orphan(visitor->takeover, fds, message.value, answer_visitor, visitor);
    } else if (got == 1 && message.type == FL_MESSAGE_MAY_ADOPT) {
        fl_loop_unwatch(visitor->takeover->acceptor->loop, source);
        fl_takeover_check(visitor->takeover, fds, answer_visitor, visitor);
    } else if (got == 1 && message.type == FL_MESSAGE_CAPTURE) {
        new_capture(visitor, &message);
    } else {
        visitor_leave(visitor);
    }
    if (got == 1)
        fl_channel_close_fds(fds);
}

// The mode of the file is not looked at in every case (a path below a mount, a handed-on socket).
static bool visitor_may_enter(int fd)
{
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == 0 || peer.uid == geteuid());
}

static void visitor_came(struct fl_source *source, uint32_t events)
{
    (void)events;
    struct fl_keeper_socket *socket = caa_container_of(source, struct fl_keeper_socket, source);
    int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    // Out of descriptors, or of memory: the loop would come here again and again.
    if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        fl_loop_unwatch(socket->takeover->acceptor->loop, source);
        socket->paused = true;
    }
    if (fd < 0)
        return;
    struct visitor *visitor = visitor_may_enter(fd) ? calloc(1, sizeof(*visitor)) : NULL;
    if (!visitor) {
        close(fd);
        return;
    }
    visitor->takeover = socket->takeover;
    visitor->source = (struct fl_source){.fd = fd, .ready = visitor_ready};
    if (fl_loop_watch(socket->takeover->acceptor->loop, &visitor->source, EPOLLIN) != 0) {
        close(fd);
        free(visitor);
    }
}

int fl_keeper_socket_start(struct fl_takeover *takeover, const char *control,
                           struct fl_keeper_socket **ret_socket, struct fl_error *ret_error)
{
    static const struct fl_socket_access access = {0600, (uid_t)-1, (gid_t)-1};
    struct fl_keeper_socket *socket = calloc(1, sizeof(*socket));
    if (!socket)
        return fl_fail_plain(ret_error, -ENOMEM, "the host is out of memory");
    socket->takeover = takeover;
    int length = snprintf(socket->path, sizeof(socket->path), "%s" FL_KEEPER_SUFFIX, control);
    int error =
        length < (int)sizeof(socket->path)
            ? fl_inherited_sockets_listen(takeover->acceptor->sockets, FL_SOCKET_KEEPER,
                                          socket->path, SOCK_SEQPACKET, &access, &socket->listening)
            : -ENAMETOOLONG;
    if (!error) {
        socket->source = (struct fl_source){.fd = socket->listening.fd, .ready = visitor_came};
        error = fl_loop_watch(takeover->acceptor->loop, &socket->source, EPOLLIN);
        if (error) {
            fl_socket_close(socket->path, &socket->listening);
            fl_inherited_sockets_forget(takeover->acceptor->sockets, FL_SOCKET_KEEPER);
        }
    }
    if (error) {
        free(socket);
        return fl_fail(ret_error, error, "the server cannot listen at %s" FL_KEEPER_SUFFIX,
                       control);
    }
    *ret_socket = socket;
    return 0;
}

bool fl_keeper_socket_look(struct fl_keeper_socket *socket)
{
    if (socket->paused)
        socket->paused =
            fl_loop_watch(socket->takeover->acceptor->loop, &socket->source, EPOLLIN) != 0;
    return fl_socket_is_at(socket->path, &socket->listening);
}

void fl_keeper_socket_stop(struct fl_keeper_socket *socket)
{
    if (!socket)
        return;
    fl_loop_unwatch(socket->takeover->acceptor->loop, &socket->source);
    fl_socket_close(socket->path, &socket->listening);
    free(socket);
}
