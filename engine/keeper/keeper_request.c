// SPDX-License-Identifier: Apache-2.0
//
// What engines ask the keeper for.
#include "engine/keeper/keeper_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/log.h"

enum { LEAST_ROOM = 8 }; // for a connection and the VM that it becomes

// The same file through a description of its own: the service manager keeps each description
// under one name only. Without /proc the record has the same one: nothing of it is lost here.
static int reopen_socket(int fd)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int own = open(path, O_RDONLY | O_CLOEXEC);
    return own < 0 && errno == ENOENT ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : own;
}

// The connection is a record before the engine hears of it.
static int accept_for(struct fl_keeper *keeper, const struct fl_message *request, int *ret_socket)
{
    struct fl_record *listener =
        fl_records_find(&keeper->records, FL_RECORD_LISTENER, request->other);
    if (!listener || listener->slots < 2 || listener->fd[0] < 0)
        return -ENOENT;
    struct fl_record *connection =
        fl_records_find(&keeper->records, FL_RECORD_CONNECTION, request->id);
    if (connection) { // the engine had no descriptor for it
        *ret_socket = connection->fd[0];
        return 0;
    }
    // Not more than can become VMs.
    if (fl_keeper_room(keeper) <= LEAST_ROOM)
        return -EMFILE;
    // First: a connection that was taken without a record of what for would be lost.
    int description = reopen_socket(listener->fd[1]);
    if (description < 0)
        return -errno;
    int socket = accept4(listener->fd[0], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (socket < 0) {
        int error = -errno;
        close(description);
        return error;
    }
    struct fl_message put = {
        .kind = FL_RECORD_CONNECTION, .id = request->id, .slots = 2, .mask = 3};
    int fds[FL_CHANNEL_FDS];
    memset(fds, -1, sizeof(fds));
    fds[0] = socket;
    fds[1] = description;
    *ret_socket = socket; // the record's
    return fl_records_put(&keeper->records, &put, fds);
}

static void accept_request(struct fl_keeper *keeper, struct fl_child *child,
                           const struct fl_message *request)
{
    int socket = -1;
    struct fl_message answer = {.type = FL_MESSAGE_ACCEPTED, .id = request->id};
    answer.error = accept_for(keeper, request, &socket);
    answer.slots = 1;
    answer.mask = answer.error ? 0 : 1;
    answer.value = fl_keeper_room(keeper);
    // It waits for the answer, so there is room for it.
    if (fl_channel_send(child->channel, &answer, &socket, false) != 0)
        fl_child_kill(child); // the rest follows from its end
}

static int put_record(struct fl_keeper *keeper, const struct fl_message *message,
                      int fds[FL_CHANNEL_FDS])
{
    int error = fl_records_put(&keeper->records, message, fds);
    if (error)
        fl_log(FL_LOG_ERROR, "event=put_failed kind=%u id=%llu reason=\"%s\"", message->kind,
               (unsigned long long)message->id, strerror(-error));
    return error;
}

// A VM takes the place of its handshake's connection. If we are killed in between, the service
// manager has both, and the VM says which connection it comes from. The socket is theirs both, and
// the service manager keeps it under one name only: it goes last.
static void put_vm(struct fl_keeper *keeper, struct fl_child *child,
                   const struct fl_message *message, int fds[FL_CHANNEL_FDS])
{
    struct fl_message kept = {.type = FL_MESSAGE_KEPT, .id = message->id};
    int socket = fds[FL_VM_SOCKET];
    fds[FL_VM_SOCKET] = -1;
    kept.error = put_record(keeper, message, fds);
    fl_records_drop(&keeper->records, FL_RECORD_CONNECTION, message->other);
    if (socket >= 0 && !kept.error) {
        fds[FL_VM_SOCKET] = socket;
        put_record(keeper, message, fds);
    } else if (socket >= 0) {
        close(socket);
    }
    kept.value = fl_keeper_room(keeper);
    // It waits for the answer, so there is room for it.
    if (child->channel >= 0 && fl_channel_send(child->channel, &kept, NULL, false) != 0)
        fl_child_kill(child); // the rest follows from its end
}

static void watch_life(struct fl_keeper *keeper, struct fl_child *child, int fds[FL_CHANNEL_FDS])
{
    int error = fds[0] < 0 ? -EPROTO : fl_keeper_watch_life(keeper, child, fds[0]);
    fds[0] = -1;
    if (error) // its end will be seen later, that is all
        fl_log(FL_LOG_WARNING, "event=watch_failed pid=%d reason=\"%s\"", (int)child->pid,
               strerror(-error));
}

static void child_ready(struct fl_keeper *keeper, struct fl_child *child, int fds[FL_CHANNEL_FDS])
{
    if (child->phase != FL_CHILD_STARTING)
        return;
    watch_life(keeper, child, fds);
    fl_child_set_phase(child, FL_CHILD_READY);
    if (keeper->serving)
        fl_log(FL_LOG_INFO, "event=engine_ready pid=%d", (int)child->pid);
    if (keeper->upgrade.state == FL_UPGRADE_STARTING)
        fl_keeper_upgrade_ready(keeper);
    fl_keeper_promote(keeper);
    fl_keeper_tell_news(keeper);
}

// From the engine that serves, or did until it yielded or died.
static void from_serving(struct fl_keeper *keeper, struct fl_child *child,
                         const struct fl_message *message, int fds[FL_CHANNEL_FDS])
{
    switch (message->type) {
    case FL_MESSAGE_SERVING:
        if (child->phase == FL_CHILD_TAKING_OVER)
            fl_keeper_served(keeper, child, message->value);
        break;
    case FL_MESSAGE_PUT:
        if (message->other)
            put_vm(keeper, child, message, fds);
        else
            put_record(keeper, message, fds);
        break;
    case FL_MESSAGE_DROP:
        fl_records_drop(&keeper->records, message->kind, message->id);
        break;
    case FL_MESSAGE_ACCEPT:
        accept_request(keeper, child, message);
        break;
    case FL_MESSAGE_PONG:
        child->pinged_ns = 0;
        child->oldest_ns = message->value;
        break;
    case FL_MESSAGE_UPGRADE:
        fl_keeper_upgrade(keeper, message->text, message->value);
        break;
    case FL_MESSAGE_YIELDED: // it touches nothing from now on: its end need not be waited for
        if (child->phase == FL_CHILD_YIELDING) {
            fl_keeper_retire(keeper, child);
            fl_keeper_promote(keeper);
        }
        break;
    case FL_MESSAGE_DEGRADED:
        snprintf(keeper->degraded, sizeof(keeper->degraded), "%.1000s", message->text);
        fl_keeper_tell_manager(keeper);
        break;
    case FL_MESSAGE_REPLACE:
        fl_keeper_hand_on(keeper, fds[0]);
        fds[0] = -1;
        break;
    case FL_MESSAGE_COMMAND:
        fl_keeper_run_command(message->text, fds);
        break;
    case FL_MESSAGE_ENDED:
        keeper->engine_ended = true;
        break;
    default:
        break;
    }
}

void fl_keeper_receive(struct fl_keeper *keeper, struct fl_child *child)
{
    static struct fl_message message;
    int fds[FL_CHANNEL_FDS];
    int got = 0;
    while (child->channel >= 0 && !keeper->replaced) { // the rest is for the keeper that has it now
        got = fl_channel_receive(child->channel, &message, fds, false);
        if (got == -EMFILE && message.type == FL_MESSAGE_PUT) {
            fl_keeper_lost(keeper, child, &message);
            continue;
        }
        if (got != 1 && got != -EMFILE) // others mean the same without what they brought
            break;
        if (message.type != FL_MESSAGE_PONG)
            fl_keeper_stir(keeper);
        if (message.type == FL_MESSAGE_READY)
            child_ready(keeper, child, fds);
        else if (keeper->serving == child)
            from_serving(keeper, child, &message, fds);
        fl_channel_close_fds(fds);
    }
    if (child->channel < 0 || got == -EAGAIN || keeper->replaced)
        return;
    // The end, or nonsense: either way nothing more can be had from it.
    close(child->channel);
    child->channel = -1;
    child->ended_ns = fl_now();
    fl_keeper_stir(keeper);
}
