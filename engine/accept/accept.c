// SPDX-License-Identifier: Apache-2.0
//
// Where there is not room for all, first comes what VMs need that are served, then new VMs, then
// sockets of images.
//
// While there is no room for another VM the paths of all sockets are taken away: a client that
// connects then is told at once, and has not handed over a userfaultfd that the server cannot
// receive. Clients that had connected before are refused, with the reason, for as long as there is
// room for that; else they wait in the queue until a VM has ended.
#include "engine/accept/accept.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/connection.h"
#include "engine/accept/connections.h"
#include "engine/accept/keeper_state.h"
#include "engine/accept/listener.h"
#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/descriptors.h"
#include "engine/base/log.h"
#include "engine/link/degraded.h"
#include "engine/link/keeper_link.h"
#include "engine/worker/engine.h"

enum {
    ACCEPT_AT_ONCE = 64,
    CONNECTIONS_MAX = 1024,
    CONNECTIONS_SHORT = 16, // while descriptors are short
    EACH = 4,               // descriptors of a VM
    ON_ITS_WAY = 4,         // more, while its handshake is received
    TO_REFUSE = 8,          // for a handshake that is refused, and kept until its peer is gone
    // So much of the table is for VMs, and not for sockets of images.
    SHARE_OF_VMS = 4,
    FOR_VMS = 512,
};
#define ACCEPT_PAUSE (100 * FL_NS_PER_MS)

// In our table, and in that of the keeper, which holds the same and the listeners' descriptions.
static bool has_room(const struct fl_acceptor *acceptor, unsigned reserve, unsigned more)
{
    return fl_keeper_link_room(acceptor->engine->keeper_link) >= more &&
           fl_descriptors_free(reserve + more);
}

bool fl_accept_has_room(const struct fl_acceptor *acceptor, unsigned vms)
{
    unsigned on_their_way = acceptor->connection_count < CONNECTIONS_MAX / EACH
                                ? acceptor->connection_count * EACH
                                : CONNECTIONS_MAX;
    return has_room(acceptor, fl_descriptors_reserve(), on_their_way + vms * EACH + ON_ITS_WAY);
}

bool fl_accept_has_room_to_listen(const struct fl_acceptor *acceptor)
{
    unsigned share = fl_descriptors_limit() / SHARE_OF_VMS;
    return has_room(acceptor, fl_descriptors_reserve(), share < FOR_VMS ? share : FOR_VMS);
}

static void pause_for(struct fl_listener *listener, int error)
{
    if (error == -EMFILE || error == -ENFILE)
        fl_listeners_shut(listener->acceptor);
    else
        fl_log(FL_LOG_ERROR, "event=accept_failed socket=%s reason=\"%s\"", listener->path,
               strerror(-error));
    fl_listeners_pause(listener->acceptor);
}

// False when there is nothing more to accept now.
static bool accept_one(struct fl_listener *listener)
{
    struct fl_acceptor *acceptor = listener->acceptor;
    if (fl_keeper_is_stopped(acceptor->engine)) { // it accepts, and clients wait in the queue
        fl_listeners_pause(acceptor);
        return false;
    }
    // Silent peers must not keep others out.
    if (acceptor->connection_count >= CONNECTIONS_MAX && !fl_connections_drop_oldest(acceptor)) {
        fl_listeners_pause(acceptor);
        return false;
    }
    bool room = fl_accept_has_room(acceptor, 1);
    if (!room && acceptor->connection_count > CONNECTIONS_SHORT &&
        fl_connections_drop_oldest(acceptor))
        room = fl_accept_has_room(acceptor, 1);
    if (!room && !has_room(acceptor, 0, TO_REFUSE)) {
        pause_for(listener, -EMFILE);
        return false;
    }
    int fd = fl_keeper_link_accept(acceptor->engine->keeper_link, listener->id,
                                   listener->listening.fd, &listener->accepting);
    if (fd >= 0) {
        uint64_t record = listener->accepting;
        listener->accepting = 0;
        FL_CRASH_POINT("accepted");
        fl_connections_add(listener, fd, record, room ? NULL : fl_no_descriptors);
        if (!room || !fl_accept_has_room(acceptor, 1))
            fl_listeners_shut(acceptor); // before the next one connects
        return true;
    }
    if (fd == -ECONNABORTED || fd == -EINTR)
        return true;
    if (fd != -EAGAIN)
        pause_for(listener, fd);
    return false;
}

void fl_accept_ready(struct fl_source *source, uint32_t events)
{
    (void)events;
    struct fl_listener *listener = caa_container_of(source, struct fl_listener, source);
    for (int i = 0; i < ACCEPT_AT_ONCE && accept_one(listener); i++) {
    }
}

void fl_accept_all(struct fl_listener *listener)
{
    while (accept_one(listener)) {
    }
}

void fl_listeners_pause(struct fl_acceptor *acceptor)
{
    struct fl_listener *listener;
    if (acceptor->accept_again_ns)
        return;
    acceptor->accept_again_ns = fl_now() + ACCEPT_PAUSE;
    cds_list_for_each_entry(listener, &acceptor->listeners, link)
    {
        if (listener->listening.fd >= 0)
            fl_loop_unwatch(acceptor->loop, &listener->source);
    }
}

void fl_listeners_resume(struct fl_acceptor *acceptor)
{
    struct fl_listener *listener;
    acceptor->accept_again_ns = 0;
    cds_list_for_each_entry(listener, &acceptor->listeners, link)
    {
        if (listener->listening.fd < 0)
            continue;
        int error = fl_loop_watch(acceptor->loop, &listener->source, EPOLLIN);
        // Clients would wait for ever. It is made again where it is missing (listen_look.c), and
        // those that are in its queue are accepted then.
        if (error && error != -EEXIST)
            fl_socket_unlink(listener->path, &listener->listening);
        // The keeper may have accepted what it did not tell of in time: no event comes for that.
        if (listener->accepting != 0)
            accept_one(listener);
    }
}

// The queues stay, and are accepted from.
void fl_listeners_shut(struct fl_acceptor *acceptor)
{
    struct fl_listener *listener;
    if (acceptor->shut)
        return;
    acceptor->shut = true;
    cds_list_for_each_entry(listener, &acceptor->listeners, link)
    {
        if (listener->listening.fd >= 0)
            fl_socket_unlink(listener->path, &listener->listening);
        listener->away = true;
    }
    fl_lacks(&acceptor->engine->degraded, FL_LACK_DESCRIPTORS,
             "the limit of open files, %u, is reached: no new VM is taken until others have ended",
             fl_descriptors_limit());
}

void fl_listeners_look_for_room(struct fl_acceptor *acceptor)
{
    // Not for one alone: they would come and go with it.
    if (!fl_accept_has_room(acceptor, acceptor->shut ? 2 : 1))
        fl_listeners_shut(acceptor);
    else
        acceptor->shut = false;
}
