// SPDX-License-Identifier: Apache-2.0
#include "engine/control/door.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/accept/acceptor.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/control/checkpoints.h"
#include "engine/control/routes.h"
#include "engine/link/inherited_sockets.h"
#include "snapshot/error.h"

// A connection that says nothing for so long is closed; so is one whose request has not come, or
// whose answer has not gone, in so long (control_clients.h).
enum { TIMEOUT_S = 10, REST_FACTOR = 4 };
// Of the control socket, and of each other door. libmicrohttpd takes some more, as it sees only
// later that one was shut down.
enum { CONTROL_CLIENTS = 192, OTHER_CLIENTS = 64, SOME_MORE = 64 + FL_CHECKPOINTS_MOST };
#define LONG_TURN FL_NS_PER_MS
#define SHORT_REST (100 * FL_NS_PER_MS)

static const enum fl_inherited_socket inherited_id[FL_DOORS] = {
    [FL_DOOR_CONTROL] = FL_SOCKET_CONTROL,
    [FL_DOOR_OBSERVE] = FL_SOCKET_OBSERVE,
    [FL_DOOR_METRICS] = FL_SOCKET_METRICS,
};

static const char *place_of(const struct fl_door *door)
{
    return door->options->place[door->kind];
}

static const struct fl_socket_access *access_of(const struct fl_door *door)
{
    return door->kind == FL_DOOR_CONTROL ? &door->options->control_access
                                         : &door->options->observe_access;
}

void fl_door_init(struct fl_door *door, struct fl_acceptor *acceptor, struct fl_health *health,
                  struct fl_checkpoints *checkpoints, enum fl_door_kind kind,
                  const struct fl_control_options *options)
{
    *door = (struct fl_door){.acceptor = acceptor,
                             .health = health,
                             .checkpoints = checkpoints,
                             .options = options,
                             .kind = kind,
                             .listening = {.fd = -1},
                             .due_ns = FL_NEVER};
    fl_control_clients_init(&door->clients,
                            kind == FL_DOOR_CONTROL ? CONTROL_CLIENTS : OTHER_CLIENTS);
    const char *place = place_of(door);
    door->is_tcp = place && !strchr(place, '/') && fl_tcp_parse(place, &door->address);
}

// --- libmicrohttpd ---

__attribute__((format(printf, 2, 0))) static void on_log(void *arg, const char *format,
                                                         va_list args)
{
    struct fl_door *door = arg;
    char text[256];
    door->complained = true;
    if (door->lacks) // it would say so again and again
        return;
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    fl_log(FL_LOG_WARNING, "event=control_api reason=\"%s\"", text);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *client, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **state)
{
    (void)version;
    struct fl_door *door = arg;
    // At the control socket an order may come between two questions.
    const struct fl_visit visit = {.acceptor = door->acceptor,
                                   .health = door->health,
                                   .options = door->options,
                                   .door = door->kind,
                                   .clients = &door->clients,
                                   .checkpoints = door->checkpoints,
                                   .shared = door->kind == FL_DOOR_CONTROL ? NULL : door->shared};
    return fl_routes_take(&visit, client, url, method, data, size, state);
}

static void on_completed(void *arg, struct MHD_Connection *client, void **state,
                         enum MHD_RequestTerminationCode code)
{
    (void)code;
    struct fl_door *door = arg;
    fl_control_clients_answered(&door->clients, client);
    fl_routes_end(state);
}

static void on_ready(struct fl_source *source, uint32_t events)
{
    (void)events;
    caa_container_of(source, struct fl_door, source)->ready = true; // fl_door_run() follows
}

static int start_daemon(struct fl_door *door)
{
    door->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_ERROR_LOG | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request,
        door, MHD_OPTION_EXTERNAL_LOGGER, on_log, door, MHD_OPTION_LISTEN_SOCKET,
        door->listening.fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, door,
        MHD_OPTION_NOTIFY_CONNECTION, fl_control_clients_notify, &door->clients,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT_S, MHD_OPTION_CONNECTION_LIMIT,
        door->clients.most + SOME_MORE, MHD_OPTION_END);
    door->resting = true;
    if (!door->daemon)
        return -EIO;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(door->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return -EIO;
    door->source = (struct fl_source){.fd = info->epoll_fd, .ready = on_ready};
    door->ready = true; // clients may have connected already
    int error = fl_loop_watch(door->acceptor->loop, &door->source, EPOLLIN);
    door->resting = error != 0; // it is in no epoll
    return error;
}

// The listening socket is ours again.
static void stop_daemon(struct fl_door *door)
{
    if (!door->daemon)
        return;
    if (!door->resting)
        fl_loop_unwatch(door->acceptor->loop, &door->source);
    if (door->kind == FL_DOOR_CONTROL)
        fl_checkpoints_release(door->checkpoints);
    MHD_quiesce_daemon(door->daemon);
    MHD_stop_daemon(door->daemon);
    door->daemon = NULL;
    door->due_ns = FL_NEVER;
}

// --- the socket ---

static int say_why(const struct fl_door *door, int error, struct fl_error *ret_error)
{
    const char *place = place_of(door);
    if (!door->is_tcp)
        return error == -EADDRINUSE
                   ? fl_fail_plain(ret_error, error, "another server listens at %s", place)
                   : fl_fail(ret_error, error, "the server cannot listen at %s", place);
    const char *why = error == -EADDRINUSE      ? "another process uses this port"
                      : error == -EADDRNOTAVAIL ? "this host has no such address"
                      : error == -EAFNOSUPPORT  ? "the kernel, or RestrictAddressFamilies= of the "
                                                  "unit, does not allow this kind of address "
                                                  "(docs/security.md)"
                                                : strerror(-error);
    return fl_fail_plain(ret_error, error, "the server cannot listen at %s: %s", place, why);
}

// A predecessor's socket, to which clients may have connected already, or one of our own.
static int get_socket(struct fl_door *door)
{
    struct fl_inherited_sockets *sockets = door->acceptor->sockets;
    enum fl_inherited_socket id = inherited_id[door->kind];
    if (door->is_tcp) {
        int fd = fl_inherited_sockets_listen_tcp(sockets, id, &door->address);
        door->listening = (struct fl_listening){.fd = fd < 0 ? -1 : fd};
        return fd < 0 ? fd : 0;
    }
    int error = fl_inherited_sockets_listen(sockets, id, place_of(door), SOCK_STREAM,
                                            access_of(door), &door->listening);
    if (error)
        door->listening.fd = -1;
    // The access that is asked for now, and not when a predecessor made it.
    return error ? error : fl_socket_set_access(place_of(door), &door->listening, access_of(door));
}

static int start_anew(struct fl_door *door, struct fl_error *ret_error)
{
    int error = start_daemon(door);
    if (error) // the next look begins anew
        stop_daemon(door);
    return error ? fl_fail(ret_error, error, "the control API cannot start at %s", place_of(door))
                 : 0;
}

static int open_door(struct fl_door *door, struct fl_error *ret_error)
{
    int error = get_socket(door);
    if (error)
        say_why(door, error, ret_error);
    else
        error = start_anew(door, ret_error);
    if (error)
        fl_door_shut(door);
    return error;
}

static bool socket_is_there(const struct fl_door *door)
{
    return door->is_tcp || fl_socket_is_at(place_of(door), &door->listening);
}

// The new one is there before the old one is given up.
static int open_again(struct fl_door *door, struct fl_error *ret_error)
{
    struct fl_listening new;
    int error = fl_socket_listen(place_of(door), SOCK_STREAM, access_of(door), &new);
    if (error)
        return say_why(door, error, ret_error);
    stop_daemon(door);
    fl_inherited_sockets_replace(door->acceptor->sockets, inherited_id[door->kind],
                                 new.fd); // closes the old one
    door->listening = new;
    return start_anew(door, ret_error);
}

int fl_door_look(struct fl_door *door, struct fl_error *ret_error)
{
    if (!place_of(door)) {
        fl_inherited_sockets_drop(door->acceptor->sockets, inherited_id[door->kind]);
        return 0;
    }
    if (door->listening.fd < 0)
        return open_door(door, ret_error);
    if (!socket_is_there(door))
        return open_again(door, ret_error);
    return door->daemon ? 0 : start_anew(door, ret_error);
}

void fl_door_shut(struct fl_door *door)
{
    if (door->listening.fd < 0)
        return;
    stop_daemon(door);
    fl_inherited_sockets_forget(door->acceptor->sockets, inherited_id[door->kind]);
    if (door->is_tcp) {
        close(door->listening.fd);
        door->listening.fd = -1;
    } else {
        fl_socket_close(place_of(door), &door->listening);
    }
}

// --- run ---

static void rest(struct fl_door *door, uint64_t until)
{
    fl_loop_unwatch(door->acceptor->loop, &door->source);
    door->resting = true;
    door->due_ns = until;
}

// It cannot accept then, and would try again for ever: that a client waits stays true
// (findings/libmicrohttpd-emfile-spins.sh).
static bool lacks_files(const struct fl_door *door)
{
    if (!door->complained)
        return false;
    int fd = eventfd(0, EFD_CLOEXEC);
    if (fd < 0)
        return true;
    close(fd);
    return false;
}

static void end_turn(struct fl_door *door)
{
    for (int i = 0; i < FL_SHARED_ANSWERS; i++) {
        if (door->shared[i])
            MHD_destroy_response(door->shared[i]); // who has got it has it still
        door->shared[i] = NULL;
    }
}

static uint64_t next_due(struct fl_door *door, uint64_t now)
{
    MHD_UNSIGNED_LONG_LONG ms = 0;
    uint64_t due = fl_control_clients_next_due(&door->clients);
    if (MHD_get_timeout(door->daemon, &ms) != MHD_YES)
        return due;
    uint64_t mhd = now + ms * FL_NS_PER_MS;
    return mhd < due ? mhd : due;
}

void fl_door_run(struct fl_door *door, uint64_t now)
{
    if (door->kind == FL_DOOR_CONTROL && fl_checkpoints_went_on(door->checkpoints))
        door->ready = true;
    if (!door->daemon || (now < door->due_ns && (door->resting || !door->ready)))
        return;
    if (door->resting && fl_loop_watch(door->acceptor->loop, &door->source, EPOLLIN) != 0) {
        door->due_ns = now + SHORT_REST; // the host is out of memory
        return;
    }
    door->resting = false;
    door->ready = false;
    uint64_t before = fl_now();
    fl_control_clients_expire(&door->clients, before);
    door->complained = false;
    MHD_run(door->daemon);
    end_turn(door);
    uint64_t after = fl_now();
    door->lacks = lacks_files(door);
    if (door->lacks)
        rest(door, after + SHORT_REST);
    else if (door->kind != FL_DOOR_CONTROL && after - before >= LONG_TURN)
        rest(door, after + REST_FACTOR * (after - before));
    else
        door->due_ns = next_due(door, after);
}

uint64_t fl_door_next_due(const struct fl_door *door)
{
    return door->daemon ? door->due_ns : FL_NEVER;
}
