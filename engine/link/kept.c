// SPDX-License-Identifier: Apache-2.0
#include "engine/link/kept_internal.h"

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

#include "engine/accept/attach.h"
#include "engine/accept/connection.h"
#include "engine/accept/listen.h"
#include "engine/base/log.h"
#include "engine/image/images.h"
#include "engine/link/degraded.h"
#include "engine/server/server.h"
#include "engine/takeover/adopt.h"
#include "engine/takeover/pulse.h"
#include "engine/template/templates.h"
#include "engine/vm/vm.h"
#include "engine/worker/engine.h"
#include "snapshot/read.h"

// What came while an answer was waited for.
struct later {
    struct cds_list_head link;
    struct fl_message message;
    int fds[FL_CHANNEL_FDS];
};

// --- the channel ---

void fl_kept_lost(struct fl_kept *kept)
{
    if (kept->source.fd < 0)
        return;
    fl_server_unwatch(kept->server, &kept->source);
    close(kept->source.fd);
    kept->source.fd = -1;
    snprintf(kept->news, sizeof(kept->news), "null");
    fl_server_keeper_lost(kept->server, kept->outside);
}

void fl_kept_send(struct fl_kept *kept, const struct fl_message *message, const int *fds)
{
    if (!fl_kept_any(kept))
        return;
    int error = fl_channel_send(kept->source.fd, message, fds, true);
    if (error)
        fl_kept_lost(kept);
}

static void send_type(struct fl_kept *kept, enum fl_message_type type, uint64_t value)
{
    struct fl_message message = {.type = type, .value = value};
    fl_kept_send(kept, &message, NULL);
}

// With that by which our end is seen.
static void send_life(struct fl_kept *kept, enum fl_message_type type, uint64_t value)
{
    struct fl_message message = {.type = type, .value = value, .slots = 1, .mask = 1};
    fl_kept_send(kept, &message, &kept->server->engine->life_fd);
}

static void put_vm(void *arg, const struct fl_vm *vm)
{
    fl_kept_put_vm(arg, vm, 0);
}

// All that a keeper is to hold: it is new, or has not got all of it.
static void put_everything(struct fl_kept *kept)
{
    struct fl_server *server = kept->server;
    fl_server_keep_mode(server);
    fl_images_keep_all(server->engine->images);
    fl_templates_keep_all(server->engine->templates);
    fl_vms_each(server->engine, put_vm, kept);
    fl_listeners_keep(server);
    fl_connections_keep(server);
    fl_server_keep_sockets(server);
}

static void handle(struct fl_kept *kept, const struct fl_message *message, int fds[FL_CHANNEL_FDS])
{
    switch (message->type) {
    case FL_MESSAGE_RECORD:
        fl_adopt_record(kept->server, message, fds);
        break;
    case FL_MESSAGE_FREED:
        fl_adopt_freed(kept->server, message->id);
        break;
    case FL_MESSAGE_SERVE:
        kept->outside = message->other != 0;
        fl_kept_learn_room(kept, message->id);
        fl_server_serve(kept->server, message->value);
        break;
    case FL_MESSAGE_AGAIN:
        put_everything(kept);
        fl_log(FL_LOG_INFO, "event=kept_again vms=%u", kept->server->engine->vm_count);
        break;
    case FL_MESSAGE_PING:
        fl_kept_learn_room(kept, message->value);
        fl_pulse_take(kept->server);
        break;
    case FL_MESSAGE_STOP:
        fl_server_stop(kept->server, message->value);
        break;
    case FL_MESSAGE_YIELD:
        fl_server_yield(kept->server);
        break;
    case FL_MESSAGE_NEWS:
        snprintf(kept->news, sizeof(kept->news), "%s", message->text);
        break;
    default:
        break;
    }
}

void fl_kept_run(struct fl_kept *kept)
{
    while (kept && !cds_list_empty(&kept->later)) {
        struct later *later = cds_list_first_entry(&kept->later, struct later, link);
        cds_list_del(&later->link);
        handle(kept, &later->message, later->fds);
        fl_channel_close_fds(later->fds);
        free(later);
    }
}

static void ready(struct fl_source *source, uint32_t events)
{
    (void)events;
    struct fl_kept *kept = caa_container_of(source, struct fl_kept, source);
    int fds[FL_CHANNEL_FDS];
    int got = 1;
    fl_kept_run(kept);
    while (got == 1 && kept->source.fd >= 0) {
        got = fl_channel_receive(kept->source.fd, &kept->received, fds, false);
        if (got == -EMFILE && kept->server->serving)
            got = 1; // that of an answer which nobody waits for any more
        if (got == 1) {
            handle(kept, &kept->received, fds);
            fl_channel_close_fds(fds);
            fl_kept_run(kept);
        }
    }
    if (got < 0 && got != -EAGAIN && !kept->server->serving) {
        // The keeper is there, and sends another engine what we could not have.
        fl_log(FL_LOG_ERROR, "event=receive_failed reason=\"%s\"", strerror(-got));
        _exit(1);
    }
    if (got != 1 && got != -EAGAIN)
        fl_kept_lost(kept);
}

static int watch(struct fl_kept *kept, int channel)
{
    kept->source = (struct fl_source){.fd = channel, .ready = ready};
    return fl_server_watch(kept->server, &kept->source, EPOLLIN);
}

int fl_kept_start(struct fl_server *server, int channel, struct fl_kept **ret_kept)
{
    struct fl_kept *kept = calloc(1, sizeof(*kept));
    if (!kept)
        return -ENOMEM;
    kept->server = server;
    kept->next_id = 1;
    kept->room = UINT_MAX;
    kept->source.fd = -1;
    snprintf(kept->news, sizeof(kept->news), "null");
    CDS_INIT_LIST_HEAD(&kept->later);
    *ret_kept = kept;
    if (channel < 0)
        return 0;
    fcntl(channel, F_SETFD, FD_CLOEXEC);
    int error = watch(kept, channel);
    if (!error)
        send_life(kept, FL_MESSAGE_READY, (uint64_t)getpid());
    return error;
}

void fl_kept_stop(struct fl_kept *kept)
{
    if (!kept)
        return;
    if (kept->source.fd >= 0)
        close(kept->source.fd);
    free(kept);
}

bool fl_kept_any(const struct fl_kept *kept)
{
    return kept && kept->source.fd >= 0;
}

const char *fl_kept_news(const struct fl_kept *kept)
{
    return kept ? kept->news : "null";
}

uint64_t fl_kept_new_id(struct fl_kept *kept)
{
    return kept ? kept->next_id++ : 0;
}

void fl_kept_seen_id(struct fl_kept *kept, uint64_t id)
{
    if (id >= kept->next_id)
        kept->next_id = id + 1;
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

int fl_kept_wait_for(struct fl_kept *kept, enum fl_message_type type, uint64_t id, int *ret_fd)
{
    for (;;) {
        struct later *later = new_later();
        int got = fl_channel_receive(kept->source.fd, &later->message, later->fds, true);
        if (got != 1 && got != -EMFILE) {
            free(later);
            fl_kept_lost(kept);
            return -EPIPE;
        }
        if (later->message.type != type || later->message.id != id) {
            cds_list_add_tail(&later->link, &kept->later);
            continue;
        }
        int error = got == 1 ? later->message.error : got; // the keeper has what we could not have
        *ret_fd = later->fds[0];
        fl_kept_learn_room(kept, later->message.value);
        free(later);
        return error;
    }
}

void fl_kept_learn_room(struct fl_kept *kept, uint64_t room)
{
    if (room > 0) // a keeper of a version before does not say
        kept->room = room < UINT_MAX ? (unsigned)room - 1 : UINT_MAX;
}

unsigned fl_kept_room(const struct fl_kept *kept)
{
    return fl_kept_any(kept) ? kept->room : UINT_MAX;
}

// --- asking ---

int fl_kept_accept(struct fl_kept *kept, uint64_t listener, int listening, uint64_t *id)
{
    if (*id == 0)
        *id = fl_kept_new_id(kept);
    if (fl_kept_any(kept)) {
        struct fl_message request = {.type = FL_MESSAGE_ACCEPT, .id = *id, .other = listener};
        fl_kept_send(kept, &request, NULL);
        int socket = -1;
        int error =
            fl_kept_any(kept) ? fl_kept_wait_for(kept, FL_MESSAGE_ACCEPTED, *id, &socket) : -EPIPE;
        if (error != -EPIPE)
            return error ? error : socket;
    }
    int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int fl_kept_upgrade(struct fl_kept *kept, const char *path, bool keeper_too)
{
    struct fl_message message = {.type = FL_MESSAGE_UPGRADE,
                                 .value = keeper_too ? FL_UPGRADE_KEEPER : 0};
    if (!fl_kept_any(kept))
        return -ENOTCONN;
    if ((size_t)snprintf(message.text, sizeof(message.text), "%s", path) >= sizeof(message.text))
        return -ENAMETOOLONG;
    fl_kept_send(kept, &message, NULL);
    return 0;
}

void fl_kept_serving(struct fl_kept *kept)
{
    send_life(kept, FL_MESSAGE_SERVING, kept->server->engine->vm_count);
}

void fl_kept_pong(struct fl_kept *kept, uint64_t oldest_ns)
{
    send_type(kept, FL_MESSAGE_PONG, oldest_ns);
}

void fl_kept_yielded(struct fl_kept *kept)
{
    send_type(kept, FL_MESSAGE_YIELDED, 0);
}

void fl_kept_degraded(struct fl_kept *kept, const char *text)
{
    struct fl_message message = {.type = FL_MESSAGE_DEGRADED};
    snprintf(message.text, sizeof(message.text), "%s", text);
    fl_kept_send(kept, &message, NULL);
}

void fl_kept_ended(struct fl_kept *kept)
{
    if (kept)
        send_type(kept, FL_MESSAGE_ENDED, 0);
}

// --- a new keeper ---

int fl_kept_change_keeper(struct fl_kept *kept, int channel)
{
    struct fl_server *server = kept->server;
    if (fl_kept_any(kept))
        return -EBUSY;
    fcntl(channel, F_SETFL, 0); // answers are waited for
    int error = watch(kept, channel);
    if (error) {
        kept->source.fd = -1;
        return error;
    }
    put_everything(kept);
    fl_kept_serving(kept);
    fl_degraded_tell(server->engine);
    return 0;
}
