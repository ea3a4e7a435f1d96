// SPDX-License-Identifier: Apache-2.0
//
// Accepting connections from listeners, and not accepting where there is no room for what they
// bring.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/clock.h"
#include "engine/connection.h"
#include "engine/engine.h"
#include "engine/kept.h"
#include "engine/listen.h"
#include "engine/log.h"
#include "engine/point.h"

enum { ACCEPT_AT_ONCE = 64, CONNECTIONS_MAX = 1024, DESCRIPTORS_FREE = 512 };
#define ACCEPT_PAUSE (100 * FL_NS_PER_MS)

// A peer may send FL_FDS_MAX descriptors, and one that is lost for want of room is a VM that hangs:
// so a part of the table, which fills from below, is kept free.
static bool descriptors_are_short(const struct fl_listener *listener)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < 2 * DESCRIPTORS_FREE)
        return false;
    int top =
        fcntl(listener->listening.fd, F_DUPFD_CLOEXEC, (int)limit.rlim_cur - DESCRIPTORS_FREE);
    if (top >= 0)
        close(top);
    return top != (int)limit.rlim_cur - DESCRIPTORS_FREE;
}

// False when there is nothing more to accept now.
static bool accept_one(struct fl_listener *listener)
{
    struct fl_server *server = listener->server;
    // Silent peers must not keep others out.
    if (server->connection_count >= CONNECTIONS_MAX && !fl_connections_drop_oldest(server)) {
        fl_listeners_pause(server);
        return false;
    }
    if (descriptors_are_short(listener)) {
        fl_log(FL_LOG_ERROR, "event=accept_failed socket=%s reason=\"descriptors are short\"",
               listener->path);
        fl_listeners_pause(server);
        return false;
    }
    uint64_t record = 0;
    int fd = fl_kept_accept(server->engine->kept, listener->id, listener->listening.fd, &record);
    if (fd >= 0) {
        FL_POINT("accepted");
        fl_connection_new(server, listener->image, listener->policy, listener->purpose, fd, record);
        return true;
    }
    if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -ENOBUFS) {
        fl_log(FL_LOG_ERROR, "event=accept_failed socket=%s reason=\"%s\"", listener->path,
               strerror(-fd));
        fl_listeners_pause(server);
        return false;
    }
    return fd == -ECONNABORTED || fd == -EINTR;
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

void fl_listeners_pause(struct fl_server *server)
{
    struct fl_listener *listener;
    if (server->accept_again_ns)
        return;
    server->accept_again_ns = fl_now() + ACCEPT_PAUSE;
    cds_list_for_each_entry(listener, &server->listeners, link)
    {
        if (listener->listening.fd >= 0)
            fl_server_unwatch(server, &listener->source);
    }
}

void fl_listeners_resume(struct fl_server *server)
{
    struct fl_listener *listener;
    server->accept_again_ns = 0;
    cds_list_for_each_entry(listener, &server->listeners, link)
    {
        if (listener->listening.fd >= 0)
            fl_server_watch(server, &listener->source, EPOLLIN);
    }
}
