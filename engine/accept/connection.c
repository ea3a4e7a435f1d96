// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A connection comes from a listener or from a predecessor (connections.c),
// and its state (connection_state.h) says how far it is:
//
//   connection_handshake.c  READING: text and userfaultfd are looked at (MSG_PEEK), and stay in the
//                           socket for a successor until the VM is a record of the keeper's.
//   connection_look.c       LOOKING: a reader finds whose memory it is, whether what the handshake
//                           says is true, and opens the image.
//   connection_attach.c     DECIDING: does it fit, is there room (COUNTING, a reader again), is it
//                           served already; then it becomes a VM.
//   connection_template.c   what is different for clients of a template (WAITING).
//
// The control thread owns it. In LOOKING and COUNTING the reader has it, and the control thread may
// only write `doomed`; the reader's mail brings it back. Whatever settles a connection frees it: a
// caller must not touch it afterwards. Its peer's descriptors, its template's hold and an image
// that was opened are the connection's until the VM has them, or they are closed.
#include "engine/accept/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/refuse.h"
#include "engine/base/clock.h"
#include "engine/base/close_thread.h"
#include "engine/host/uffd.h"
#include "engine/link/keeper_link.h"
#include "engine/template/templates.h"
#include "engine/vm/handshake.h"

enum { CHUNK = 4096 };

bool fl_connection_move(struct fl_connection *connection, enum fl_connection_state to)
{
    if (!fl_states_check(&fl_connection_states, connection->state, to))
        return false;
    connection->state = to;
    return true;
}

const char fl_no_new_vm[] = "the engine takes no new VM: it is draining or stopping";
const char fl_no_descriptors[] =
    "the server is out of file descriptors: try again when other VMs have ended";

struct fl_connection *fl_connection_new(struct fl_acceptor *acceptor,
                                        const struct fl_endpoint *description, int socket,
                                        uint64_t record)
{
    struct fl_connection *connection = calloc(1, sizeof(*connection));
    if (!connection)
        return NULL;
    connection->acceptor = acceptor;
    connection->begun_ns = fl_now();
    connection->purpose = (enum fl_purpose)description->purpose;
    connection->offered = description->template;
    connection->text = malloc(FL_HANDSHAKE_MAX + 1);
    snprintf(connection->image, sizeof(connection->image), "%s", description->image);
    connection->source.fd = -1;
    connection->peer = (struct fl_peer){
        .uffd = -1,
        .pidfd = -1,
        .socket = socket,
        .connection = record,
        .choices = {(enum fl_policy)description->policy, (enum fl_huge)description->huge}};
    cds_list_add_tail(&connection->link, &acceptor->connections);
    acceptor->connection_count++;
    return connection;
}

int fl_connection_describe(const struct fl_connection *connection)
{
    struct fl_endpoint endpoint = {.magic = FL_ENDPOINT_MAGIC,
                                   .version = FL_ENDPOINT_VERSION,
                                   .policy = connection->peer.choices.policy,
                                   .huge = connection->peer.choices.huge,
                                   .purpose = connection->purpose,
                                   .template = connection->offered};
    snprintf(endpoint.image, sizeof(endpoint.image), "%s", connection->image);
    return fl_endpoint_write(&endpoint);
}

bool fl_connection_has_spoken(const struct fl_connection *connection)
{
    int bytes = 0;
    return ioctl(connection->peer.socket, FIONREAD, &bytes) == 0 && bytes > 0;
}

void fl_connection_expect_soon(struct fl_connection *connection)
{
    connection->deadline_ns =
        fl_now() + connection->acceptor->engine->options.handshake_timeout_ms * FL_NS_PER_MS;
}

void fl_connection_unwatch(struct fl_connection *connection)
{
    if (connection->source.fd >= 0)
        fl_loop_unwatch(connection->acceptor->loop, &connection->source);
    connection->source.fd = -1;
}

// A process may wait on each userfaultfd that came: the first is the peer's, any other is kept
// among those that are refused.
void fl_connection_choose_uffd(struct fl_connection *connection)
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

// --- its end ---

// Until the VM is the keeper's, the handshake stays in the socket, for a successor: it is only
// looked at (MSG_PEEK). Then it is taken out, as a socket that is closed with something unread in
// it is an error to the peer.
static void consume_handshake(int socket, size_t left)
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
    fl_connection_move(connection, FL_CONNECTION_SETTLED);
    cds_list_del(&connection->link);
    connection->acceptor->connection_count--;
    if (connection->template)
        fl_template_unhold(connection->template);
    free(connection->text);
    free(connection);
}

int fl_connection_own_socket(const struct fl_connection *connection)
{
    return fcntl(connection->peer.socket, F_DUPFD_CLOEXEC, 0);
}

void fl_connection_settled(struct fl_connection *connection, int own_socket)
{
    consume_handshake(own_socket, connection->used);
    free_connection(connection);
}

void fl_connection_refuse(struct fl_connection *connection, const char *reason)
{
    int socket = fl_connection_own_socket(connection);
    fl_connection_unwatch(connection);
    fl_connection_choose_uffd(connection);
    fl_refuse(connection->acceptor->engine, &connection->peer, connection->image, reason);
    fl_connection_settled(connection, socket);
}

void fl_connection_drop(struct fl_connection *connection)
{
    fl_connection_unwatch(connection);
    if (connection->peer.connection)
        fl_keeper_link_drop(connection->acceptor->engine->keeper_link, FL_RECORD_CONNECTION,
                            connection->peer.connection);
    fl_peer_close(&connection->peer);
    free_connection(connection);
}
