// SPDX-License-Identifier: Apache-2.0
//
// Sockets whose files were removed, or that could not be had, are made again. Clients that wait in
// the queue of the old one are accepted first.
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/accept/accept.h"
#include "engine/accept/acceptor.h"
#include "engine/accept/listen.h"
#include "engine/base/descriptors.h"
#include "engine/base/log.h"
#include "engine/link/degraded.h"
#include "engine/worker/engine.h"

// The one at the path is new; clients that have connected to the old one are accepted.
static int renew_listener(struct fl_listener *listener)
{
    struct fl_listening new;
    if (listener->listening.fd < 0)
        return fl_listener_open(listener);
    int error = fl_socket_listen(listener->path, SOCK_STREAM, &listener->access, &new);
    if (error)
        return error;
    fl_listener_unwatch(listener);
    fl_accept_all(listener);
    if (listener->acceptor->accept_again_ns) { // not all of them: another time
        fl_socket_close(listener->path, &new);
        return -EMFILE;
    }
    close(listener->listening.fd);
    listener->listening = new;
    fl_listener_write_down(listener);
    error = fl_listener_watch(listener);
    if (error) // it is tried again
        fl_listener_close_socket(listener);
    return error;
}

// A service manager that starts a unit with another user than before makes that user the owner of
// all that is in the unit's directories, other users' sockets too. Once, and only what is ours now:
// an owner that an operator has set by hand is left alone.
static void regain_owner(struct fl_listener *listener)
{
    const struct fl_socket_access *access = &listener->access;
    struct stat status;
    bool looked = !listener->adopted;
    listener->adopted = false;
    if (looked || lstat(listener->path, &status) != 0 || status.st_uid != geteuid() ||
        status.st_gid != getegid())
        return;
    bool right = (access->uid == (uid_t)-1 || access->uid == status.st_uid) &&
                 (access->gid == (gid_t)-1 || access->gid == status.st_gid);
    int error = right ? 0 : fl_socket_set_access(listener->path, &listener->listening, access);
    if (error)
        fl_log(FL_LOG_ERROR, "event=listen_failed image=%s socket=%s reason=\"its owner: %s\"",
               listener->image, listener->path, strerror(-error));
}

// 0: it is there. Or why not. `full`: there is no room for a socket more.
static int look_at_listener(struct fl_listener *listener, bool full)
{
    bool bound = listener->listening.fd >= 0;
    if (bound && fl_socket_is_at(listener->path, &listener->listening)) {
        listener->away = false;
        regain_owner(listener);
        return 0;
    }
    // What waits in its queue must be accepted first.
    bool later = bound ? listener->acceptor->accept_again_ns != 0 : listener->automatic && full;
    int error = later ? -EMFILE : renew_listener(listener);
    if (!error)
        fl_log(FL_LOG_INFO, "event=listen image=%s socket=%s reason=\"the socket was %s\"",
               listener->image, listener->path, bound ? "gone" : "not available before");
    else if (!listener->away && error != -EMFILE)
        fl_log(FL_LOG_ERROR, "event=listen_failed image=%s socket=%s reason=\"%s\"",
               listener->image, listener->path, fl_listener_why(error));
    listener->away = error != 0;
    return error;
}

static void say_what_is_away(struct fl_acceptor *acceptor, unsigned away, int error, unsigned full)
{
    if (away > 0)
        fl_lacks(&acceptor->engine->degraded, FL_LACK_SOCKETS,
                 "images cannot be reached in the directory of sockets %s: %s", acceptor->directory,
                 fl_listener_why(error));
    else
        fl_has(&acceptor->engine->degraded, FL_LACK_SOCKETS);
    if (full > 0)
        fl_lacks(&acceptor->engine->degraded, FL_LACK_DESCRIPTORS,
                 "the limit of open files, %u, leaves no room for the sockets of %u image%s",
                 fl_descriptors_limit(), full, full == 1 ? "" : "s");
    else
        fl_has(&acceptor->engine->degraded, FL_LACK_DESCRIPTORS);
}

void fl_listeners_look(struct fl_acceptor *acceptor)
{
    struct fl_listener *listener;
    int first = 0;
    unsigned away = 0;
    unsigned full = 0;
    mkdir(acceptor->directory, 0755); // it is there, as a rule
    cds_list_for_each_entry(listener, &acceptor->listeners, link)
    {
        // A place that was asked for goes with its owner's directory, as jails do.
        bool own = listener->automatic || listener->purpose == FL_PURPOSE_TEMPLATE;
        int error = look_at_listener(listener, full > 0);
        full += error == -EMFILE && own;
        away += error && error != -EMFILE && own;
        first = first == 0 && error != -EMFILE ? error : first;
    }
    say_what_is_away(acceptor, away, first, full);
}
