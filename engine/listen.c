// SPDX-License-Identifier: Apache-2.0
#include "engine/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/clock.h"
#include "engine/connection.h"
#include "engine/description.h"
#include "engine/engine.h"
#include "engine/kept.h"
#include "engine/log.h"
#include "engine/point.h"
#include "engine/templates.h"
#include "snapshot/read.h"

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

static void ready(struct fl_source *source, uint32_t events)
{
    (void)events;
    struct fl_listener *listener = caa_container_of(source, struct fl_listener, source);
    for (int i = 0; i < ACCEPT_AT_ONCE && accept_one(listener); i++) {
    }
}

static void free_listener(struct fl_listener *listener)
{
    if (listener->description >= 0)
        close(listener->description);
    free(listener->image);
    free(listener->path);
    free(listener);
}

// Who has connected already has perhaps handed its userfaultfd over: closing the queue would lose
// it, and leave the VM waiting. So the path goes first, then the queue is emptied.
static void close_listener(struct fl_listener *listener)
{
    fl_server_unwatch(listener->server, &listener->source);
    fl_socket_unlink(listener->path, &listener->listening);
    while (accept_one(listener)) {
    }
    fl_kept_drop(listener->server->engine->kept, FL_RECORD_LISTENER, listener->id);
    close(listener->listening.fd);
    cds_list_del(&listener->link);
    free_listener(listener);
}

static const char *why(int error)
{
    switch (error) {
    case -EADDRINUSE:
        return "another process listens there";
    case -EEXIST:
        return "there is something that is not a socket";
    case -ENOENT:
        return "its directory does not exist";
    default:
        return strerror(-error);
    }
}

bool fl_listener_image_exists(const struct fl_server *server, const char *image)
{
    char path[PATH_MAX];
    struct stat status;
    if (!fl_name_valid(image))
        return false;
    int length =
        snprintf(path, sizeof(path), "%s/%s.img", fl_reader_images_dir(server->reader), image);
    return length < (int)sizeof(path) && stat(path, &status) == 0;
}

struct fl_listener *fl_listener_find(struct fl_server *server, const char *path)
{
    struct fl_listener *listener;
    cds_list_for_each_entry(listener, &server->listeners, link)
    {
        if (strcmp(listener->path, path) == 0 || fl_socket_is_at(path, &listener->listening))
            return listener;
    }
    return NULL;
}

void fl_listener_remove(struct fl_listener *listener)
{
    fl_log(FL_LOG_INFO, "event=unlisten image=%s socket=%s", listener->image, listener->path);
    close_listener(listener);
}

static struct fl_listener *new_listener(struct fl_server *server, const char *image,
                                        const char *path)
{
    struct fl_listener *listener = calloc(1, sizeof(*listener));
    if (!listener)
        return NULL;
    listener->image = strdup(image);
    listener->path = strdup(path);
    listener->server = server;
    listener->description = -1;
    if (listener->image && listener->path)
        return listener;
    free_listener(listener);
    return NULL;
}

static int watch(struct fl_listener *listener)
{
    struct fl_server *server = listener->server;
    listener->seen = true;
    listener->source = (struct fl_source){.fd = listener->listening.fd, .ready = ready};
    cds_list_add_tail(&listener->link, &server->listeners);
    // Not before we serve: the keeper may still be telling us what there is.
    bool later = server->accept_again_ns || !server->serving;
    return later ? 0 : fl_server_watch(server, &listener->source, EPOLLIN);
}

static int describe(struct fl_listener *listener)
{
    struct fl_description description = {.magic = FL_DESCRIPTION_MAGIC,
                                         .version = FL_DESCRIPTION_VERSION,
                                         .automatic = listener->automatic,
                                         .dev = listener->listening.dev,
                                         .ino = listener->listening.ino,
                                         .policy = listener->policy,
                                         .purpose = listener->purpose};
    snprintf(description.image, sizeof(description.image), "%s", listener->image);
    snprintf(description.path, sizeof(description.path), "%s", listener->path);
    listener->description = fl_description_write(&description);
    return listener->description < 0 ? listener->description : 0;
}

// Before the first connection: one that is accepted refers to the record.
static int keep(struct fl_listener *listener)
{
    struct fl_kept *kept = listener->server->engine->kept;
    if (!kept)
        return 0;
    listener->id = fl_kept_new_id(kept);
    int error = describe(listener);
    if (!error)
        fl_kept_put_listener(kept, listener->id, listener->listening.fd, listener->description);
    return error;
}

// Takes the listener.
static int begin(struct fl_listener *listener, const struct fl_socket_access *access,
                 const char **ret_reason)
{
    int error = fl_socket_listen(listener->path, SOCK_STREAM, access, &listener->listening);
    if (error) {
        *ret_reason = why(error);
        free_listener(listener);
        return error;
    }
    error = keep(listener);
    int watched = watch(listener);
    error = error ? error : watched;
    if (error) {
        *ret_reason = why(error);
        close_listener(listener);
        return error;
    }
    fl_log(FL_LOG_INFO, "event=listen image=%s socket=%s", listener->image, listener->path);
    return 0;
}

int fl_listener_add(struct fl_server *server, const char *image, const char *path,
                    const struct fl_socket_access *access, enum fl_policy policy, bool automatic,
                    const char **ret_reason)
{
    struct fl_listener *listener = new_listener(server, image, path);
    if (!listener) {
        *ret_reason = why(-ENOMEM);
        return -ENOMEM;
    }
    listener->automatic = automatic;
    listener->policy = policy;
    return begin(listener, access, ret_reason);
}

int fl_listener_add_template(struct fl_server *server, const char *image, const char *path,
                             const struct fl_socket_access *access, const char **ret_reason)
{
    struct fl_listener *listener = new_listener(server, image, path);
    if (!listener) {
        *ret_reason = why(-ENOMEM);
        return -ENOMEM;
    }
    listener->purpose = FL_PURPOSE_TEMPLATE;
    return begin(listener, access, ret_reason);
}

void fl_listener_adopt(struct fl_server *server, uint64_t id, int fds[FL_CHANNEL_FDS])
{
    struct fl_description description;
    bool whole = fds[0] >= 0 && fds[1] >= 0 && fl_description_read(fds[1], &description) == 0;
    struct fl_listener *listener =
        whole ? new_listener(server, description.image, description.path) : NULL;
    if (!listener) {
        fl_log(FL_LOG_ERROR, "event=adopt_failed listener=%" PRIu64, id);
        fl_kept_drop(server->engine->kept, FL_RECORD_LISTENER, id);
        return;
    }
    listener->id = id;
    listener->automatic = description.automatic != 0;
    listener->policy = (enum fl_policy)description.policy;
    listener->purpose = (enum fl_purpose)description.purpose;
    listener->listening =
        (struct fl_listening){.fd = fds[0], .dev = description.dev, .ino = description.ino};
    listener->description = fds[1];
    fds[0] = fds[1] = -1;
    int error = watch(listener);
    if (error)
        fl_log(FL_LOG_ERROR, "event=listen_failed image=%s socket=%s reason=\"%s\"",
               listener->image, listener->path, strerror(-error));
}

void fl_listeners_keep(struct fl_server *server)
{
    struct fl_listener *listener;
    cds_list_for_each_entry(listener, &server->listeners, link) fl_kept_put_listener(
        server->engine->kept, listener->id, listener->listening.fd, listener->description);
}

void fl_listeners_close(struct fl_server *server)
{
    struct fl_listener *listener;
    struct fl_listener *next;
    cds_list_for_each_entry_safe(listener, next, &server->listeners, link) close_listener(listener);
}

void fl_listeners_pause(struct fl_server *server)
{
    struct fl_listener *listener;
    if (server->accept_again_ns)
        return;
    server->accept_again_ns = fl_now() + ACCEPT_PAUSE;
    cds_list_for_each_entry(listener, &server->listeners, link)
        fl_server_unwatch(server, &listener->source);
}

void fl_listeners_resume(struct fl_server *server)
{
    struct fl_listener *listener;
    server->accept_again_ns = 0;
    cds_list_for_each_entry(listener, &server->listeners, link)
        fl_server_watch(server, &listener->source, EPOLLIN);
}

// Marks the listeners of the image; true if one of them is automatic.
static bool mark(struct fl_server *server, const char *image)
{
    bool automatic = false;
    struct fl_listener *listener;
    cds_list_for_each_entry(listener, &server->listeners, link)
    {
        if (strcmp(listener->image, image) != 0)
            continue;
        listener->seen = true;
        automatic = automatic || listener->automatic;
    }
    return automatic;
}

static void add_automatic(struct fl_server *server, const char *image)
{
    char path[PATH_MAX];
    const char *reason = NULL;
    int length = snprintf(path, sizeof(path), "%s/%s.sock", server->options->sockets, image);
    if (length >= (int)sizeof(path))
        reason = "its path is too long";
    else
        fl_listener_add(server, image, path, &server->options->access, FL_POLICY_DEFAULT, true,
                        &reason);
    if (reason)
        fl_log(FL_LOG_ERROR, "event=listen_failed image=%s socket=%s reason=\"%s\"", image, path,
               reason);
}

void fl_listeners_follow(struct fl_server *server, char *const *images, unsigned count)
{
    struct fl_listener *listener;
    struct fl_listener *next;
    cds_list_for_each_entry(listener, &server->listeners, link) listener->seen = false;
    for (unsigned i = 0; i < count; i++) {
        if (!mark(server, images[i]))
            add_automatic(server, images[i]);
    }
    cds_list_for_each_entry_safe(listener, next, &server->listeners, link)
    {
        // The list may be older than the image, and than the order to listen for it.
        if (!listener->seen && !fl_listener_image_exists(server, listener->image))
            fl_listener_remove(listener);
    }
    fl_templates_follow(server->engine->templates);
}
