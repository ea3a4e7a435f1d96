// SPDX-License-Identifier: Apache-2.0
//
// Clients that had connected before the sockets were shut (room.c) are refused, with the reason,
// for as long as there is room for that; else they wait in the queue until a VM has ended.
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
#include "engine/accept/room.h"
#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/link/keeper_link.h"
#include "engine/worker/engine.h"

enum {
    ACCEPT_AT_ONCE = 64,
    CONNECTIONS_MAX = 1024,
    CONNECTIONS_SHORT = 16, // while descriptors are short
};
#define ACCEPT_PAUSE (100 * FL_NS_PER_MS)

static void pause_for(struct fl_listener *listener, int error)
{
    if (error == -EMFILE || error == -ENFILE)
        fl_room_shut(listener->acceptor);
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
    bool room = fl_room_for_vms(acceptor, 1);
    if (!room && acceptor->connection_count > CONNECTIONS_SHORT &&
        fl_connections_drop_oldest(acceptor))
        room = fl_room_for_vms(acceptor, 1);
    if (!room && !fl_room_to_refuse(acceptor)) {
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
        if (!room || !fl_room_for_vms(acceptor, 1))
            fl_room_shut(acceptor); // before the next one connects
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
