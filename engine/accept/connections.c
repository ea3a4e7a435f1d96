// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/connections.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/connection.h"
#include "engine/accept/connection_handshake.h"
#include "engine/accept/connection_template.h"
#include "engine/accept/keeper_state.h"
#include "engine/accept/listener.h"
#include "engine/accept/refuse.h"
#include "engine/base/clock.h"
#include "engine/base/fdpass.h"
#include "engine/base/log.h"
#include "engine/link/endpoint_memfd.h"
#include "engine/link/keeper_link.h"

#define RETRY_EVERY (100 * FL_NS_PER_MS)

static void begin_connection(struct fl_acceptor *acceptor, const struct fl_endpoint *description,
                             int socket, uint64_t record, const char *doomed)
{
    struct fl_connection *connection = fl_connection_new(acceptor, description, socket, record);
    if (!connection) {
        fl_log(FL_LOG_ERROR, "event=accept_failed image=%s reason=\"the host is out of memory\"",
               description->image);
        close(socket);
        return;
    }
    connection->doomed = doomed;
    fl_peer_identify(socket, &connection->peer.pid, &connection->peer.pidfd);
    fl_log(FL_LOG_DEBUG, "event=connection image=%s pid=%" PRId64, connection->image,
           (int64_t)connection->peer.pid);
    fl_connection_expect_soon(connection);
    if (!connection->text || fl_connection_watch(connection) != 0)
        fl_connection_refuse(connection, "the host is out of memory");
    else if (connection->purpose == FL_PURPOSE_TEMPLATE && doomed)
        fl_connection_turn_away(connection, doomed);
    else if (connection->purpose == FL_PURPOSE_TEMPLATE)
        fl_connection_offer_template(connection);
}

void fl_connections_add(struct fl_listener *listener, int socket, uint64_t record,
                        const char *doomed)
{
    struct fl_endpoint description = {.policy = listener->choices.policy,
                                      .huge = listener->choices.huge,
                                      .purpose = listener->purpose};
    snprintf(description.image, sizeof(description.image), "%s", listener->image);
    begin_connection(listener->acceptor, &description, socket, record, doomed);
}

void fl_connections_adopt(struct fl_acceptor *acceptor, uint64_t record, int fds[FL_CHANNEL_FDS])
{
    struct fl_endpoint endpoint;
    if (fds[0] < 0 || fds[1] < 0 || fl_endpoint_read(fds[1], &endpoint) != 0) {
        fl_log(FL_LOG_ERROR,
               "event=adopt_failed connection=%llu reason=\"the record of the connection is not "
               "complete\"",
               (unsigned long long)record);
        fl_keeper_link_drop(acceptor->engine->keeper_link, FL_RECORD_CONNECTION, record);
        return;
    }
    begin_connection(acceptor, &endpoint, fds[0], record, NULL);
    fds[0] = -1;
}

void fl_connections_keep(struct fl_acceptor *acceptor)
{
    struct fl_keeper_link *keeper_link = acceptor->engine->keeper_link;
    struct fl_connection *connection;
    cds_list_for_each_entry(connection, &acceptor->connections, link)
    {
        int fd = fl_connection_describe(connection);
        if (!connection->peer.connection)
            connection->peer.connection = fl_keeper_link_new_id(keeper_link);
        fl_keeper_link_put_connection(keeper_link, connection->peer.connection,
                                      connection->peer.socket, fd);
        if (fd >= 0)
            close(fd);
    }
}

void fl_connections_template_ready(struct fl_acceptor *acceptor, struct fl_template *template,
                                   int error)
{
    struct fl_connection *connection;
    struct fl_connection *next;
    cds_list_for_each_entry_safe(connection, next, &acceptor->connections, link)
    {
        if (connection->template == template)
            fl_connection_template_ready(connection, error);
    }
}

// --- those whose time is up ---

static const char *why_refused(const struct fl_connection *connection)
{
    if (fl_service_refuses(connection->acceptor->state))
        return fl_no_new_vm;
    if (connection->state == FL_CONNECTION_STARVED)
        return fl_no_descriptors;
    if (connection->ungreeted)
        return "the template could not be checked in time";
    return connection->used > 0 && connection->fds.count == 0
               ? "no userfaultfd came with the handshake in time"
               : "the client did not send its request in time";
}

// A userfaultfd that is still in the socket must be received to be answered.
static void give_up_connection(struct fl_connection *connection, const char *reason)
{
    if (connection->state ==
        FL_CONNECTION_STARVED) { // it will be refused as soon as there is room for that
        connection->doomed = reason;
        fl_connection_move(connection, FL_CONNECTION_GIVEN_UP);
        fl_refuse_log(connection->acceptor->engine, connection->image, connection->peer.pid,
                      "waiting", 0, reason);
        return;
    }
    if (connection->ungreeted && !fl_connection_has_spoken(connection))
        fl_connection_turn_away(connection, reason);
    else if (!fl_connection_receive(connection))
        fl_connection_refuse(connection, reason);
}

void fl_connections_expire(struct fl_acceptor *acceptor, uint64_t now)
{
    struct fl_connection *connection;
    struct fl_connection *next;
    cds_list_for_each_entry_safe(connection, next, &acceptor->connections, link)
    {
        if (fl_connection_is_starved(connection->state) && now >= connection->retry_ns) {
            connection->retry_ns = now + RETRY_EVERY;
            if (fl_connection_retry(connection))
                continue;
        }
        if (!fl_connection_has_deadline(connection->state) ||
            (!fl_service_refuses(acceptor->state) && connection->deadline_ns > now))
            continue;
        if (!fl_service_refuses(acceptor->state) && fl_keeper_is_stopped(acceptor->engine)) {
            fl_connection_expect_soon(connection); // it is not the client that takes so long
            continue;
        }
        give_up_connection(connection, why_refused(connection));
    }
}

bool fl_connections_drop_oldest(struct fl_acceptor *acceptor)
{
    struct fl_connection *connection;
    cds_list_for_each_entry(connection, &acceptor->connections, link)
    {
        if (!fl_connection_has_deadline(connection->state))
            continue;
        give_up_connection(connection,
                           "the client did not send its request while too many others wait");
        return true;
    }
    return false;
}

uint64_t fl_connections_next_due(const struct fl_acceptor *acceptor)
{
    uint64_t due = FL_NEVER;
    struct fl_connection *connection;
    cds_list_for_each_entry(connection, &acceptor->connections, link)
    {
        if (fl_connection_has_deadline(connection->state) && connection->deadline_ns < due)
            due = connection->deadline_ns;
        if (fl_connection_is_starved(connection->state) && connection->retry_ns < due)
            due = connection->retry_ns;
    }
    return due;
}
