// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/connection_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/accept/attach.h"
#include "engine/accept/refuse.h"
#include "engine/accept/rejoin.h"
#include "engine/base/clock.h"
#include "engine/base/close_thread.h"
#include "engine/base/crash_point.h"
#include "engine/base/descriptors.h"
#include "engine/base/fdpass.h"
#include "engine/base/io_pool.h"
#include "engine/base/log.h"
#include "engine/host/memory_owner.h"
#include "engine/host/uffd.h"
#include "engine/image/images.h"
#include "engine/link/keeper_link.h"
#include "engine/template/template.h"
#include "engine/template/templates.h"
#include "engine/vm/handshake.h"
#include "snapshot/read.h"

enum { REASON_BYTES = 256, CHUNK = 4096, TO_RECEIVE = 4 };

const char fl_no_new_vm[] = "the engine takes no new VM: it is draining or stopping";
const char fl_no_descriptors[] =
    "the server is out of file descriptors: it can be tried again when other VMs have ended";

// Until the VM is the keeper's, the handshake stays in the socket, for a successor: it is only
// looked at (MSG_PEEK). Then it is taken out, as a socket that is closed with something unread in
// it is an error to the peer.
static void consume(int socket, size_t left)
{
    char bin[CHUNK];
    ssize_t got = 1;
    while (got > 0 && left > 0) {
        struct fl_fds fds = {0};
        got = fl_recv_fds(socket, bin, left < sizeof(bin) ? left : sizeof(bin), 0, &fds);
        fl_fds_close(&fds);
        left -= got > 0 ? (size_t)got : 0;
    }
    fl_close_later(socket);
}

static void free_connection(struct fl_connection *connection)
{
    cds_list_del(&connection->link);
    connection->acceptor->connection_count--;
    if (connection->template)
        fl_template_unhold(connection->template);
    free(connection->text);
    free(connection);
}

// What somebody may wait on is kept, whatever else came with it: the first userfaultfd as the
// peer's, any other among those that are refused.
static void choose_uffd(struct fl_connection *connection)
{
    struct fl_uffd_info info;
    struct fl_fds *fds = &connection->fds;
    for (unsigned i = 0; i < fds->count; i++) {
        if (fl_uffd_examine(fds->fd[i], &info) == -EINVAL)
            continue;
        if (connection->peer.uffd < 0) {
            connection->peer.uffd = fds->fd[i];
        } else {
            struct fl_peer other = {
                .pid = connection->peer.pid, .uffd = fds->fd[i], .pidfd = -1, .socket = -1};
            fl_keep_refused(connection->acceptor->engine, &other);
        }
        fds->fd[i] = -1;
    }
    fl_fds_close(fds);
}

int fl_connection_own_socket(const struct fl_connection *connection)
{
    return fcntl(connection->peer.socket, F_DUPFD_CLOEXEC, 0);
}

void fl_connection_settled(struct fl_connection *connection, int own_socket)
{
    consume(own_socket, connection->used);
    free_connection(connection);
}

static void stop_listening(struct fl_connection *connection)
{
    if (connection->source.fd >= 0)
        fl_loop_unwatch(connection->acceptor->loop, &connection->source);
    connection->source.fd = -1;
}

void fl_connection_refuse(struct fl_connection *connection, const char *reason)
{
    int socket = fl_connection_own_socket(connection);
    stop_listening(connection);
    choose_uffd(connection);
    fl_refuse(connection->acceptor->engine, &connection->peer, connection->image, reason);
    fl_connection_settled(connection, socket);
}

// --- the handshake ---

// Events beyond REMOVE would make the engine read descriptors or chase mappings that nobody tells
// it of.
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
        return error == -EINVAL   ? "the file descriptor that came with it is not a userfaultfd"
               : error == -EMFILE ? fl_no_descriptors
                                  : "the host is out of memory or descriptors";
    if (!info.ready)
        return "its userfaultfd was not enabled with UFFDIO_API";
    return check_features(info.features);
}

// All of the text is there, and one descriptor.
static void complete(struct fl_connection *connection, size_t length)
{
    const char *reason = check_uffd(connection);
    if (!reason)
        fl_handshake_parse(connection->text, length, &connection->layout, &connection->part,
                           &reason);
    if (reason) {
        fl_connection_refuse(connection, reason);
        return;
    }
    stop_listening(connection);
    connection->deadline_ns = FL_NEVER;
    choose_uffd(connection);
    if (connection->doomed)
        fl_connection_refuse(connection, connection->doomed);
    else
        fl_connection_look(connection);
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
    if (!connection->starved)
        fl_log(FL_LOG_WARNING, "event=handshake_waits image=%s reason=\"%s\"", connection->image,
               fl_no_descriptors);
    connection->starved = true;
}

bool fl_connection_retry(struct fl_connection *connection)
{
    return fl_descriptors_free(TO_RECEIVE) && fl_connection_receive(connection);
}

// After more text: true if the connection is settled, one way or the other.
static bool look_at_text(struct fl_connection *connection)
{
    // At once: nobody may have the engine hold more of them while it waits for the rest.
    if (connection->fds.count > 1 || connection->fds.lost) {
        fl_connection_refuse(
            connection, "more than one file descriptor came with it (guest_memfd handshakes are "
                        "not served)");
        return true;
    }
    long length = fl_handshake_length(connection->text, connection->used);
    if (length < 0) {
        fl_connection_refuse(connection, "what it sent is not a JSON array of regions");
        return true;
    }
    if (connection->used >= FL_HANDSHAKE_MAX && (length == 0 || connection->fds.count == 0)) {
        fl_connection_refuse(connection, "what it sent is longer than 65536 bytes");
        return true;
    }
    if (length == 0 || connection->fds.count == 0)
        return false;
    complete(connection, (size_t)length);
    return true;
}

void fl_connection_ended(struct fl_connection *connection)
{
    // Somebody who only looks whether we listen is no case for the log.
    if (connection->used == 0 && connection->fds.count == 0) {
        stop_listening(connection);
        if (connection->peer.connection)
            fl_keeper_link_drop(connection->acceptor->engine->keeper_link, FL_RECORD_CONNECTION,
                                connection->peer.connection);
        fl_peer_close(&connection->peer);
        free_connection(connection);
        return;
    }
    fl_connection_refuse(connection,
                         connection->fds.count == 0 && connection->used > 0 &&
                                 fl_handshake_length(connection->text, connection->used) > 0
                             ? "no userfaultfd came with it"
                             : "it closed the connection before its handshake was complete");
}

bool fl_connection_receive(struct fl_connection *connection)
{
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
        connection->starved = false;
        if (look_at_text(connection))
            return true;
    }
}

static void ready(struct fl_source *source, uint32_t events)
{
    (void)events;
    fl_connection_receive(caa_container_of(source, struct fl_connection, source));
}

void fl_connection_expect_soon(struct fl_connection *connection)
{
    connection->deadline_ns =
        fl_now() + connection->acceptor->engine->options.handshake_timeout_ms * FL_NS_PER_MS;
}

// Edge-triggered, as what was looked at stays there to be read.
static void expect(struct fl_connection *connection)
{
    static const int from_the_beginning = 0;
    struct fl_acceptor *acceptor = connection->acceptor;
    int socket = connection->peer.socket;
    fl_peer_identify(socket, &connection->peer.pid, &connection->peer.pidfd);
    fl_connection_expect_soon(connection);
    connection->source = (struct fl_source){.fd = socket, .ready = ready};
    setsockopt(socket, SOL_SOCKET, SO_PEEK_OFF, &from_the_beginning, sizeof(from_the_beginning));
    if (!connection->text ||
        fl_loop_watch(acceptor->loop, &connection->source, EPOLLIN | EPOLLET) != 0)
        fl_connection_refuse(connection, "the host is out of memory");
    else if (connection->purpose == FL_PURPOSE_TEMPLATE && connection->doomed)
        fl_connection_turn_away(connection, connection->doomed);
    else if (connection->purpose == FL_PURPOSE_TEMPLATE)
        fl_connection_offer_template(connection);
}

static void begin(struct fl_acceptor *acceptor, const struct fl_endpoint *description, int socket,
                  uint64_t record, const char *doomed)
{
    const char *image = description->image;
    struct fl_connection *connection = calloc(1, sizeof(*connection));
    if (!connection) {
        fl_log(FL_LOG_ERROR, "event=accept_failed image=%s reason=\"the host is out of memory\"",
               image);
        close(socket);
        return;
    }
    connection->acceptor = acceptor;
    connection->purpose = (enum fl_purpose)description->purpose;
    connection->offered = description->template;
    connection->doomed = doomed;
    connection->text = malloc(FL_HANDSHAKE_MAX + 1);
    snprintf(connection->image, sizeof(connection->image), "%s", image);
    connection->peer = (struct fl_peer){.uffd = -1,
                                        .pidfd = -1,
                                        .socket = socket,
                                        .connection = record,
                                        .policy = (enum fl_policy)description->policy};
    cds_list_add_tail(&connection->link, &acceptor->connections);
    acceptor->connection_count++;
    expect(connection);
}

void fl_connection_new(struct fl_acceptor *acceptor, const char *image, enum fl_policy policy,
                       enum fl_purpose purpose, int socket, uint64_t record, const char *doomed)
{
    struct fl_endpoint description = {.policy = policy, .purpose = purpose};
    snprintf(description.image, sizeof(description.image), "%s", image);
    begin(acceptor, &description, socket, record, doomed);
}

void fl_connection_begin(struct fl_acceptor *acceptor, const struct fl_endpoint *description,
                         int socket, uint64_t record)
{
    begin(acceptor, description, socket, record, NULL);
}
