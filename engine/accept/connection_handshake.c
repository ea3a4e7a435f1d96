// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/connection_handshake.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <urcu/compiler.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/connection.h"
#include "engine/accept/connection_look.h"
#include "engine/accept/keeper_state.h"
#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/descriptors.h"
#include "engine/base/log.h"
#include "engine/host/uffd.h"
#include "engine/vm/handshake.h"

enum { TO_RECEIVE = 4 };

// Events beyond REMOVE would make the engine read descriptors or chase mappings that it is not
// told of.
static const char *check_features(uint64_t features)
{
    if (features & (UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP))
        return "its userfaultfd has fork, remap or unmap events; only remove events are served";
    return NULL;
}

static const char *check_uffd(struct fl_connection *connection)
{
    struct fl_uffd_info info;
    int error = fl_uffd_examine(connection->fds.fd[0], &info);
    if (error)
        return error == -EINVAL
                   ? "the file descriptor that came with the handshake is not a userfaultfd"
               : error == -EMFILE ? fl_no_descriptors
                                  : "the host is out of memory or descriptors";
    if (!info.ready)
        return "its userfaultfd was not enabled with UFFDIO_API";
    return check_features(info.features);
}

// All of the text is there, and one descriptor.
static void handshake_complete(struct fl_connection *connection, size_t length)
{
    const char *reason = check_uffd(connection);
    if (!reason)
        fl_handshake_parse(connection->text, length, &connection->layout, &connection->more,
                           &reason);
    connection->peer.reserved = connection->more.reserved;
    if (reason) {
        fl_connection_refuse(connection, reason);
        return;
    }
    fl_connection_unwatch(connection);
    fl_connection_choose_uffd(connection);
    if (connection->doomed)
        fl_connection_refuse(connection, connection->doomed);
    else
        fl_connection_look(connection);
}

// It is read once more every moment.
static void starve(struct fl_connection *connection, const char *reason)
{
    if (fl_connection_is_starved(connection->state))
        return;
    fl_connection_move(connection, FL_CONNECTION_STARVED);
    fl_log(FL_LOG_WARNING, "event=handshake_waits image=%s reason=\"%s\"", connection->image,
           reason);
}

// What was looked at is still in the socket, with the descriptor that we had no room for: to close
// it could be to close the last userfaultfd of a VM.
static void start_over(struct fl_connection *connection)
{
    static const int from_the_beginning = 0;
    fl_fds_close(&connection->fds);
    connection->fds = (struct fl_fds){0};
    connection->used = 0;
    setsockopt(connection->source.fd, SOL_SOCKET, SO_PEEK_OFF, &from_the_beginning,
               sizeof(from_the_beginning));
    starve(connection, fl_no_descriptors);
}

// After more text: true if the connection is settled, one way or the other.
static bool look_at_text(struct fl_connection *connection)
{
    // At once: no client may have the engine hold more of them while it waits for the rest.
    if (connection->fds.count > 1 || connection->fds.lost) {
        fl_connection_refuse(
            connection,
            "more than one file descriptor came with the handshake (guest_memfd is not served)");
        return true;
    }
    long length = fl_handshake_length(connection->text, connection->used);
    if (length < 0) {
        fl_connection_refuse(connection, "what the client sent is not a JSON array of regions");
        return true;
    }
    if (connection->used >= FL_HANDSHAKE_MAX && (length == 0 || connection->fds.count == 0)) {
        fl_connection_refuse(connection, "what the client sent is longer than 65536 bytes");
        return true;
    }
    if (length == 0 || connection->fds.count == 0)
        return false;
    handshake_complete(connection, (size_t)length);
    return true;
}

void fl_connection_ended(struct fl_connection *connection)
{
    // A client that only looks whether we listen is no case for the log.
    if (connection->used == 0 && connection->fds.count == 0) {
        fl_connection_drop(connection);
        return;
    }
    fl_connection_refuse(
        connection, connection->fds.count == 0 && connection->used > 0 &&
                            fl_handshake_length(connection->text, connection->used) > 0
                        ? "no userfaultfd came with the handshake"
                        : "the client closed the connection before its handshake was complete");
}

// What comes of it is to be a record, for whose answer the keeper would be waited for.
static bool keeper_is_stopped(const struct fl_connection *connection)
{
    return fl_keeper_is_stopped(connection->acceptor->engine);
}

bool fl_connection_receive(struct fl_connection *connection)
{
    if (keeper_is_stopped(connection)) {
        starve(connection, "the keeper is stopped");
        return false;
    }
    for (;;) {
        // All the room there is: a part of what one message brought would bring its descriptors,
        // and the next part would bring them again.
        ssize_t got =
            fl_recv_fds(connection->source.fd, connection->text + connection->used,
                        FL_HANDSHAKE_MAX + 1 - connection->used, MSG_PEEK, &connection->fds);
        if (got == -EAGAIN || got == -EINTR)
            return false;
        if (got <= 0) {
            fl_connection_ended(connection);
            return true;
        }
        FL_CRASH_POINT("handshake_read");
        connection->used += (size_t)got;
        if (connection->fds.no_room && connection->fds.count <= 1) {
            start_over(connection);
            return false;
        }
        if (connection->state == FL_CONNECTION_STARVED)
            fl_connection_move(connection, FL_CONNECTION_READING);
        if (look_at_text(connection))
            return true;
    }
}

bool fl_connection_retry(struct fl_connection *connection)
{
    if (keeper_is_stopped(connection)) {
        fl_connection_expect_soon(connection); // it is not the client that takes so long
        return false;
    }
    return fl_descriptors_free(TO_RECEIVE) && fl_connection_receive(connection);
}

static void connection_readable(struct fl_source *source, uint32_t events)
{
    (void)events;
    fl_connection_receive(caa_container_of(source, struct fl_connection, source));
}

// Edge-triggered, as what was looked at stays there to be read.
int fl_connection_watch(struct fl_connection *connection)
{
    static const int from_the_beginning = 0;
    int socket = connection->peer.socket;
    connection->source = (struct fl_source){.fd = socket, .ready = connection_readable};
    setsockopt(socket, SOL_SOCKET, SO_PEEK_OFF, &from_the_beginning, sizeof(from_the_beginning));
    int error = fl_loop_watch(connection->acceptor->loop, &connection->source, EPOLLIN | EPOLLET);
    if (!error)
        fl_connection_move(connection, FL_CONNECTION_READING);
    return error;
}
