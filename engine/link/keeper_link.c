// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The link is a channel of datagrams that blocks: a put is sent before the
// engine goes on, and what must be safe first (a VM that takes the place of its connection, an
// accepted socket) is also answered before it goes on. While an answer is waited for, everything
// else that the keeper says is put aside (`later`) and acted on in the next round, in its order, so
// that no callback runs within another.
//
// When the channel ends or fails, wherever that is found, the link has no keeper from then on: puts
// do nothing, connections are accepted here, and lost() is called, once. What was put aside is
// acted on all the same: the keeper's last word may have been to serve. Then only a new keeper
// changes anything (fl_keeper_link_change_keeper()), which is sent all records again.
//
// The link owns its channel and what was put aside with its descriptors. Records belong to the
// parts that put them; the link only hands out their numbers. All of it is the control thread's.
#include "engine/link/keeper_link.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/log.h"
#include "engine/base/states.h"
#include "engine/link/keeper_link_internal.h"

enum { ACCEPT_MS = 2000 };

// What came while an answer was waited for.
struct later {
    struct cds_list_head link;
    struct fl_message message;
    int fds[FL_CHANNEL_FDS];
};

// --- the channel ---

static const char *const state_name[FL_KEEPER_LINK_STATES] = {
    [FL_KEEPER_LINK_NONE] = "none",
    [FL_KEEPER_LINK_STANDBY] = "standby",
    [FL_KEEPER_LINK_SERVING] = "serving",
};

static const uint32_t state_follow[FL_KEEPER_LINK_STATES] = {
    [FL_KEEPER_LINK_NONE] = FL_TO(FL_KEEPER_LINK_STANDBY) | FL_TO(FL_KEEPER_LINK_SERVING),
    [FL_KEEPER_LINK_STANDBY] = FL_TO(FL_KEEPER_LINK_SERVING) | FL_TO(FL_KEEPER_LINK_NONE),
    [FL_KEEPER_LINK_SERVING] = FL_TO(FL_KEEPER_LINK_NONE),
};

static const struct fl_states states = {.object = "keeper_link",
                                        .name = state_name,
                                        .follow = state_follow,
                                        .count = FL_KEEPER_LINK_STATES};

static void move_link(struct fl_keeper_link *keeper_link, enum fl_keeper_link_state to)
{
    if (fl_states_check(&states, keeper_link->state, to))
        keeper_link->state = to;
}

void fl_keeper_link_lost(struct fl_keeper_link *keeper_link)
{
    const struct fl_keeper_link_options *with = &keeper_link->options;
    if (keeper_link->state == FL_KEEPER_LINK_NONE)
        return;
    fl_loop_unwatch(with->loop, &keeper_link->source);
    close(keeper_link->source.fd);
    keeper_link->source.fd = -1;
    move_link(keeper_link, FL_KEEPER_LINK_NONE);
    snprintf(keeper_link->news, sizeof(keeper_link->news), "null");
    with->ops->lost(with->arg, keeper_link->outside);
}

void fl_keeper_link_send(struct fl_keeper_link *keeper_link, const struct fl_message *message,
                         const int *fds)
{
    if (!fl_keeper_link_any(keeper_link))
        return;
    int error = fl_channel_send(keeper_link->source.fd, message, fds, true);
    if (error)
        fl_keeper_link_lost(keeper_link);
}

static void send_type(struct fl_keeper_link *keeper_link, enum fl_message_type type, uint64_t value)
{
    struct fl_message message = {.type = type, .value = value};
    fl_keeper_link_send(keeper_link, &message, NULL);
}

// With that by which our end is seen.
static void send_life(struct fl_keeper_link *keeper_link, enum fl_message_type type, uint64_t value)
{
    struct fl_message message = {.type = type, .value = value, .slots = 1, .mask = 1};
    fl_keeper_link_send(keeper_link, &message, &keeper_link->options.life_fd);
}

static void act_on_message(struct fl_keeper_link *keeper_link, const struct fl_message *message,
                           int fds[FL_CHANNEL_FDS])
{
    const struct fl_keeper_link_ops *ops = keeper_link->options.ops;
    void *arg = keeper_link->options.arg;
    switch (message->type) {
    case FL_MESSAGE_RECORD:
        ops->record(arg, message, fds);
        break;
    case FL_MESSAGE_FREED:
        ops->freed(arg, message->id);
        break;
    case FL_MESSAGE_SERVE:
        keeper_link->outside = message->other != 0;
        fl_keeper_link_learn_room(keeper_link, message->id);
        if (keeper_link->state == FL_KEEPER_LINK_STANDBY)
            move_link(keeper_link, FL_KEEPER_LINK_SERVING);
        ops->serve(arg, message->value);
        break;
    case FL_MESSAGE_AGAIN:
        fl_log(FL_LOG_INFO, "event=kept_again vms=%u", ops->put_all(arg));
        break;
    case FL_MESSAGE_PING:
        fl_keeper_link_learn_room(keeper_link, message->value);
        ops->ping(arg);
        break;
    case FL_MESSAGE_STOP:
        ops->stop(arg, message->value);
        break;
    case FL_MESSAGE_YIELD:
        ops->yield(arg);
        break;
    case FL_MESSAGE_NEWS:
        snprintf(keeper_link->news, sizeof(keeper_link->news), "%s", message->text);
        break;
    default:
        break;
    }
}

void fl_keeper_link_run(struct fl_keeper_link *keeper_link)
{
    while (keeper_link && !cds_list_empty(&keeper_link->later)) {
        struct later *later = cds_list_first_entry(&keeper_link->later, struct later, link);
        cds_list_del(&later->link);
        act_on_message(keeper_link, &later->message, later->fds);
        fl_channel_close_fds(later->fds);
        free(later);
    }
}

static void channel_ready(struct fl_source *source, uint32_t events)
{
    (void)events;
    struct fl_keeper_link *keeper_link = caa_container_of(source, struct fl_keeper_link, source);
    int fds[FL_CHANNEL_FDS];
    int got = 1;
    fl_keeper_link_run(keeper_link);
    while (got == 1 && keeper_link->state != FL_KEEPER_LINK_NONE) {
        got = fl_channel_receive(keeper_link->source.fd, &keeper_link->received, fds, false);
        if (got == -EMFILE && keeper_link->state == FL_KEEPER_LINK_SERVING)
            got = 1; // the descriptor of an answer that is not waited for any more
        if (got == 1) {
            act_on_message(keeper_link, &keeper_link->received, fds);
            fl_channel_close_fds(fds);
            fl_keeper_link_run(keeper_link);
        }
    }
    if (got < 0 && got != -EAGAIN && keeper_link->state == FL_KEEPER_LINK_STANDBY) {
        // The keeper is there, and sends another engine what we could not have.
        fl_log(FL_LOG_ERROR, "event=receive_failed reason=\"%s\"", strerror(-got));
        fl_log_stop();
        _exit(1);
    }
    if (got != 1 && got != -EAGAIN)
        fl_keeper_link_lost(keeper_link);
}

static int watch_channel(struct fl_keeper_link *keeper_link, int channel)
{
    keeper_link->source = (struct fl_source){.fd = channel, .ready = channel_ready};
    return fl_loop_watch(keeper_link->options.loop, &keeper_link->source, EPOLLIN);
}

int fl_keeper_link_start(const struct fl_keeper_link_options *options,
                         struct fl_keeper_link **ret_link)
{
    struct fl_keeper_link *keeper_link = calloc(1, sizeof(*keeper_link));
    if (!keeper_link)
        return -ENOMEM;
    keeper_link->options = *options;
    keeper_link->next_id = 1;
    keeper_link->room = UINT_MAX;
    keeper_link->source.fd = -1;
    snprintf(keeper_link->news, sizeof(keeper_link->news), "null");
    CDS_INIT_LIST_HEAD(&keeper_link->later);
    *ret_link = keeper_link;
    int channel = options->channel;
    if (channel < 0)
        return 0;
    fcntl(channel, F_SETFD, FD_CLOEXEC);
    int error = watch_channel(keeper_link, channel);
    if (error)
        return error;
    move_link(keeper_link, FL_KEEPER_LINK_STANDBY);
    send_life(keeper_link, FL_MESSAGE_READY, (uint64_t)getpid());
    return 0;
}

void fl_keeper_link_stop(struct fl_keeper_link *keeper_link)
{
    if (!keeper_link)
        return;
    if (keeper_link->source.fd >= 0)
        close(keeper_link->source.fd);
    free(keeper_link);
}

bool fl_keeper_link_any(const struct fl_keeper_link *keeper_link)
{
    return keeper_link && keeper_link->state != FL_KEEPER_LINK_NONE;
}

const char *fl_keeper_link_news(const struct fl_keeper_link *keeper_link)
{
    return keeper_link ? keeper_link->news : "null";
}

int fl_keeper_link_pid(const struct fl_keeper_link *keeper_link)
{
    int pid = 0;
    const char *at = strstr(fl_keeper_link_news(keeper_link), "\"pid\": ");
    if (at)
        (void)sscanf(at, "\"pid\": %d", &pid); // NOLINT(cert-err34-c)
    return pid;
}

uint64_t fl_keeper_link_new_id(struct fl_keeper_link *keeper_link)
{
    return keeper_link ? keeper_link->next_id++ : 0;
}

void fl_keeper_link_seen_id(struct fl_keeper_link *keeper_link, uint64_t id)
{
    if (id >= keeper_link->next_id)
        keeper_link->next_id = id + 1;
}

// --- keeping ---

// A place for what may come before an answer: to have none would be to lose a message.
static struct later *new_later(void)
{
    struct later *later;
    while (!(later = malloc(sizeof(*later))))
        poll(NULL, 0, 1);
    return later;
}

// False if nothing comes in that time.
static bool comes_in_time(int channel, int wait_ms)
{
    struct pollfd readable = {.fd = channel, .events = POLLIN};
    int count = 0;
    do
        count = poll(&readable, 1, wait_ms);
    while (count < 0 && errno == EINTR);
    return count > 0;
}

int fl_keeper_link_wait_for(struct fl_keeper_link *keeper_link, enum fl_message_type type,
                            uint64_t id, int wait_ms, int *ret_fd)
{
    for (;;) {
        if (wait_ms >= 0 && !comes_in_time(keeper_link->source.fd, wait_ms))
            return -ETIMEDOUT;
        struct later *later = new_later();
        int got = fl_channel_receive(keeper_link->source.fd, &later->message, later->fds, true);
        if (got != 1 && got != -EMFILE) {
            free(later);
            fl_keeper_link_lost(keeper_link);
            return -EPIPE;
        }
        if (later->message.type != type || later->message.id != id) {
            cds_list_add_tail(&later->link, &keeper_link->later);
            continue;
        }
        int error = got == 1 ? later->message.error : got; // the keeper has what we could not have
        *ret_fd = later->fds[0];
        fl_keeper_link_learn_room(keeper_link, later->message.value);
        free(later);
        return error;
    }
}

void fl_keeper_link_learn_room(struct fl_keeper_link *keeper_link, uint64_t room)
{
    if (room > 0) // a keeper of a version before does not say
        keeper_link->room = room < UINT_MAX ? (unsigned)room - 1 : UINT_MAX;
}

unsigned fl_keeper_link_room(const struct fl_keeper_link *keeper_link)
{
    return fl_keeper_link_any(keeper_link) ? keeper_link->room : UINT_MAX;
}

// --- asking ---

int fl_keeper_link_accept(struct fl_keeper_link *keeper_link, uint64_t listener, int listening,
                          uint64_t *id)
{
    if (*id == 0)
        *id = fl_keeper_link_new_id(keeper_link);
    if (fl_keeper_link_any(keeper_link)) {
        struct fl_message request = {.type = FL_MESSAGE_ACCEPT, .id = *id, .other = listener};
        fl_keeper_link_send(keeper_link, &request, NULL);
        int socket = -1;
        int error =
            fl_keeper_link_any(keeper_link)
                ? fl_keeper_link_wait_for(keeper_link, FL_MESSAGE_ACCEPTED, *id, ACCEPT_MS, &socket)
                : -EPIPE;
        if (error != -EPIPE)
            return error ? error : socket;
    }
    int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int fl_keeper_link_upgrade(struct fl_keeper_link *keeper_link, const char *path, bool keeper_too)
{
    struct fl_message message = {.type = FL_MESSAGE_UPGRADE,
                                 .value = keeper_too ? FL_UPGRADE_KEEPER : 0};
    if (!fl_keeper_link_any(keeper_link))
        return -ENOTCONN;
    if ((size_t)snprintf(message.text, sizeof(message.text), "%s", path) >= sizeof(message.text))
        return -ENAMETOOLONG;
    fl_keeper_link_send(keeper_link, &message, NULL);
    return 0;
}

int fl_keeper_link_run_command(struct fl_keeper_link *keeper_link, int socket, int program,
                               const char *arguments)
{
    const int fds[FL_COMMAND_SLOTS] = {[FL_COMMAND_STDIO] = socket, [FL_COMMAND_PROGRAM] = program};
    struct fl_message message = {.type = FL_MESSAGE_COMMAND,
                                 .slots = FL_COMMAND_SLOTS,
                                 .mask = 1U << FL_COMMAND_STDIO | 1U << FL_COMMAND_PROGRAM};
    if (!fl_keeper_link_any(keeper_link))
        return -ENOTCONN;
    if ((size_t)snprintf(message.text, sizeof(message.text), "%s", arguments) >=
        sizeof(message.text))
        return -ENAMETOOLONG;
    fl_keeper_link_send(keeper_link, &message, fds);
    return fl_keeper_link_any(keeper_link) ? 0 : -ENOTCONN;
}

void fl_keeper_link_serving(struct fl_keeper_link *keeper_link, unsigned vms)
{
    send_life(keeper_link, FL_MESSAGE_SERVING, vms);
}

void fl_keeper_link_pong(struct fl_keeper_link *keeper_link, uint64_t oldest_ns)
{
    send_type(keeper_link, FL_MESSAGE_PONG, oldest_ns);
}

void fl_keeper_link_yielded(struct fl_keeper_link *keeper_link)
{
    send_type(keeper_link, FL_MESSAGE_YIELDED, 0);
}

void fl_keeper_link_degraded(struct fl_keeper_link *keeper_link, const char *text)
{
    struct fl_message message = {.type = FL_MESSAGE_DEGRADED};
    snprintf(message.text, sizeof(message.text), "%s", text);
    fl_keeper_link_send(keeper_link, &message, NULL);
}

void fl_keeper_link_ended(struct fl_keeper_link *keeper_link)
{
    if (keeper_link)
        send_type(keeper_link, FL_MESSAGE_ENDED, 0);
}

// --- a new keeper ---

int fl_keeper_link_change_keeper(struct fl_keeper_link *keeper_link, int channel)
{
    const struct fl_keeper_link_options *with = &keeper_link->options;
    if (fl_keeper_link_any(keeper_link))
        return -EBUSY;
    fcntl(channel, F_SETFL, 0); // answers are waited for
    int error = watch_channel(keeper_link, channel);
    if (error) {
        keeper_link->source.fd = -1;
        return error;
    }
    move_link(keeper_link, FL_KEEPER_LINK_SERVING);
    fl_keeper_link_serving(keeper_link, with->ops->put_all(with->arg));
    return 0;
}

int fl_keeper_link_replace_keeper(struct fl_keeper_link *keeper_link, int socket)
{
    struct fl_message message = {.type = FL_MESSAGE_REPLACE, .slots = 1, .mask = 1};
    if (!fl_keeper_link_any(keeper_link))
        return -ENOTCONN;
    fl_keeper_link_send(keeper_link, &message, &socket);
    return fl_keeper_link_any(keeper_link) ? 0 : -ENOTCONN;
}
