// SPDX-License-Identifier: Apache-2.0
#include "engine/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/adopt.h"
#include "engine/attach.h"
#include "engine/connection.h"
#include "engine/degraded.h"
#include "engine/engine.h"
#include "engine/images.h"
#include "engine/listen.h"
#include "engine/log.h"
#include "engine/pulse.h"
#include "engine/server.h"
#include "engine/templates.h"
#include "engine/vm.h"
#include "snapshot/read.h"

// What came while an answer was waited for.
struct later {
    struct cds_list_head link;
    struct fl_message message;
    int fds[FL_CHANNEL_FDS];
};

struct fl_kept {
    struct fl_source source; // .fd -1: no keeper
    struct fl_server *server;
    struct cds_list_head later;
    struct fl_message received;
    uint64_t next_id;
    bool outside; // a service manager keeps what the keeper does
    char news[FL_CHANNEL_TEXT];
};

// --- the channel ---

static void lost(struct fl_kept *kept)
{
    if (kept->source.fd < 0)
        return;
    fl_server_unwatch(kept->server, &kept->source);
    close(kept->source.fd);
    kept->source.fd = -1;
    snprintf(kept->news, sizeof(kept->news), "null");
    fl_server_keeper_lost(kept->server, kept->outside);
}

static void send_message(struct fl_kept *kept, const struct fl_message *message, const int *fds)
{
    if (!fl_kept_any(kept))
        return;
    int error = fl_channel_send(kept->source.fd, message, fds, true);
    if (error)
        lost(kept);
}

static void send_type(struct fl_kept *kept, enum fl_message_type type, uint64_t value)
{
    struct fl_message message = {.type = type, .value = value};
    send_message(kept, &message, NULL);
}

// With that by which our end is seen.
static void send_life(struct fl_kept *kept, enum fl_message_type type, uint64_t value)
{
    struct fl_message message = {.type = type, .value = value, .slots = 1, .mask = 1};
    send_message(kept, &message, &kept->server->engine->life_fd);
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
        fl_server_serve(kept->server, message->value);
        break;
    case FL_MESSAGE_PING:
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
        lost(kept);
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

// Puts aside what else comes first. -EPIPE if the keeper is gone.
static int wait_for(struct fl_kept *kept, enum fl_message_type type, uint64_t id, int *ret_fd)
{
    for (;;) {
        struct later *later = malloc(sizeof(*later));
        if (!later)
            return -ENOMEM;
        if (fl_channel_receive(kept->source.fd, &later->message, later->fds, true) != 1) {
            free(later);
            lost(kept);
            return -EPIPE;
        }
        if (later->message.type != type || later->message.id != id) {
            cds_list_add_tail(&later->link, &kept->later);
            continue;
        }
        int error = later->message.error;
        *ret_fd = later->fds[0];
        free(later);
        return error;
    }
}

// In the place of a connection's record it is safe before the handshake is taken out of its socket,
// and the VM's first fault is read.
static void put(struct fl_kept *kept, const struct fl_record_view *record, uint64_t connection)
{
    uint32_t from = 0;
    int none = -1;
    if (!fl_kept_any(kept))
        return;
    if (fl_channel_send_record(kept->source.fd, FL_MESSAGE_PUT, record, connection, &from, true))
        lost(kept);
    if (connection && fl_kept_any(kept))
        wait_for(kept, FL_MESSAGE_KEPT, record->id, &none);
}

void fl_kept_put_vm(struct fl_kept *kept, const struct fl_vm *vm, uint64_t connection)
{
    int fd[FL_VM_SLOTS] = {[FL_VM_STATE] = vm->state_fd,
                           [FL_VM_UFFD] = vm->uffd,
                           // By which the keeper kills: not that of who did the handshake.
                           [FL_VM_PIDFD] = vm->state->flags & FL_VM_STATE_OWNER ? vm->pidfd : -1,
                           [FL_VM_SOCKET] = vm->socket};
    put(kept, &(struct fl_record_view){FL_RECORD_VM, vm->id, 0, FL_VM_SLOTS, fd}, connection);
}

void fl_kept_put_vm_slot(struct fl_kept *kept, uint64_t vm, enum fl_vm_slot slot, int fd,
                         uint64_t connection)
{
    int fds[FL_VM_SLOTS] = {-1, -1, -1, -1};
    fds[slot] = fd;
    put(kept, &(struct fl_record_view){FL_RECORD_VM, vm, 0, FL_VM_SLOTS, fds}, connection);
}

// Through descriptions of their own, as images share packs, and the keeper's own store outside
// keeps each description once.
static void reopen(int *fd, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        char path[40];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd[i]);
        fd[i] = open(path, O_RDONLY | O_CLOEXEC);
    }
}

void fl_kept_put_image(struct fl_kept *kept, uint64_t id, const struct fl_image *image)
{
    uint32_t count = fl_image_files(image, NULL, 0);
    int *fd = fl_kept_any(kept) ? calloc(count ? count : 1, sizeof(*fd)) : NULL;
    if (!fd)
        return;
    fl_image_files(image, fd, count);
    reopen(fd, count);
    put(kept, &(struct fl_record_view){FL_RECORD_IMAGE, id, 0, count, fd}, 0);
    for (uint32_t i = 0; i < count; i++) {
        if (fd[i] >= 0)
            close(fd[i]);
    }
    free(fd);
}

void fl_kept_put_socket(struct fl_kept *kept, enum fl_kept_socket id, int fd)
{
    put(kept, &(struct fl_record_view){FL_RECORD_SOCKET, id, 0, 1, &fd}, 0);
}

static void put_described(struct fl_kept *kept, enum fl_record_kind kind, uint64_t id, int fd,
                          int description)
{
    int fds[2] = {fd, description};
    put(kept, &(struct fl_record_view){kind, id, 0, 2, fds}, 0);
}

void fl_kept_put_listener(struct fl_kept *kept, uint64_t id, int fd, int description)
{
    put_described(kept, FL_RECORD_LISTENER, id, fd, description);
}

void fl_kept_put_connection(struct fl_kept *kept, uint64_t id, int fd, int description)
{
    put_described(kept, FL_RECORD_CONNECTION, id, fd, description);
}

void fl_kept_put_template(struct fl_kept *kept, uint64_t id, int memory, int state)
{
    int fd[FL_TEMPLATE_SLOTS] = {[FL_TEMPLATE_MEMORY] = memory, [FL_TEMPLATE_STATE] = state};
    put(kept, &(struct fl_record_view){FL_RECORD_TEMPLATE, id, 0, FL_TEMPLATE_SLOTS, fd}, 0);
}

void fl_kept_put_mode(struct fl_kept *kept, uint64_t mode)
{
    int none = -1;
    put(kept, &(struct fl_record_view){FL_RECORD_MODE, 1, mode, 1, &none}, 0);
}

void fl_kept_drop(struct fl_kept *kept, enum fl_record_kind kind, uint64_t id)
{
    struct fl_message message = {.type = FL_MESSAGE_DROP, .kind = kind, .id = id};
    send_message(kept, &message, NULL);
}

// --- asking ---

int fl_kept_accept(struct fl_kept *kept, uint64_t listener, int listening, uint64_t *ret_id)
{
    *ret_id = fl_kept_new_id(kept);
    if (fl_kept_any(kept)) {
        struct fl_message request = {.type = FL_MESSAGE_ACCEPT, .id = *ret_id, .other = listener};
        send_message(kept, &request, NULL);
        int socket = -1;
        int error =
            fl_kept_any(kept) ? wait_for(kept, FL_MESSAGE_ACCEPTED, *ret_id, &socket) : -EPIPE;
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
    send_message(kept, &message, NULL);
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
    send_message(kept, &message, NULL);
}

void fl_kept_ended(struct fl_kept *kept)
{
    if (kept)
        send_type(kept, FL_MESSAGE_ENDED, 0);
}

// --- a new keeper ---

static void put_vm(void *arg, const struct fl_vm *vm)
{
    fl_kept_put_vm(arg, vm, 0);
}

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
    fl_server_keep_mode(server);
    fl_images_keep_all(server->engine->images);
    fl_templates_keep_all(server->engine->templates);
    fl_vms_each(server->engine, put_vm, kept);
    fl_listeners_keep(server);
    fl_connections_keep(server);
    fl_server_keep_sockets(server);
    fl_kept_serving(kept);
    fl_degraded_tell(server->engine);
    return 0;
}
