// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A listener is in the acceptor's list from its first attempt to listen until
// close_listener() frees it; one of an image of the store may be there without a socket
// (listening.fd -1) until there is room for one. It is watched while the server serves and
// accepting is not paused. The keeper has the same socket with a description, before the first
// client connects: a connection refers to that record. The path goes before the queue: a
// client that has connected is served.
#include "engine/accept/listen.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/accept/accept.h"
#include "engine/accept/acceptor.h"
#include "engine/accept/room.h"
#include "engine/base/log.h"
#include "engine/image/store_place.h"
#include "engine/link/endpoint_memfd.h"
#include "engine/link/keeper_link.h"
#include "engine/template/templates.h"
#include "engine/worker/engine.h"
#include "snapshot/read.h"

static void free_listener(struct fl_listener *listener)
{
    free(listener->image);
    free(listener->path);
    free(listener);
}

static bool listener_is_watched(const struct fl_listener *listener)
{
    // Not before we serve: the keeper may still be telling us what there is.
    return listener->listening.fd >= 0 && !listener->acceptor->accept_again_ns &&
           fl_service_has_begun(listener->acceptor->state);
}

int fl_listener_watch(struct fl_listener *listener)
{
    listener->source = (struct fl_source){.fd = listener->listening.fd, .ready = fl_accept_ready};
    return listener_is_watched(listener)
               ? fl_loop_watch(listener->acceptor->loop, &listener->source, EPOLLIN)
               : 0;
}

void fl_listener_unwatch(struct fl_listener *listener)
{
    if (listener_is_watched(listener))
        fl_loop_unwatch(listener->acceptor->loop, &listener->source);
}

// A client that has connected already has perhaps handed its userfaultfd over: closing the queue
// would lose it, and leave the VM waiting. So the path goes first, then the queue is emptied.
void fl_listener_close_socket(struct fl_listener *listener)
{
    fl_socket_unlink(listener->path, &listener->listening);
    fl_accept_all(listener);
    fl_keeper_link_drop(listener->acceptor->engine->keeper_link, FL_RECORD_LISTENER, listener->id);
    close(listener->listening.fd);
    listener->listening.fd = -1;
}

static void close_listener(struct fl_listener *listener)
{
    if (listener->listening.fd >= 0) {
        fl_listener_unwatch(listener);
        fl_listener_close_socket(listener);
    }
    cds_list_del(&listener->link);
    free_listener(listener);
}

const char *fl_listener_why(int error)
{
    switch (error) {
    case -EADDRINUSE:
        return "another process listens there";
    case -EEXIST:
        return "there is something that is not a socket";
    case -ENOENT:
        return "the directory of the socket does not exist";
    case -EMFILE:
        return "the limit of open files is reached";
    case -EBUSY:
        return "another process holds the lock of the socket's directory";
    default:
        return strerror(-error);
    }
}

bool fl_listener_image_exists(const struct fl_acceptor *acceptor, const char *image)
{
    char path[PATH_MAX];
    struct stat status;
    if (!fl_name_valid(image))
        return false;
    int length =
        snprintf(path, sizeof(path), "%s/%s.img", fl_store_images_dir(acceptor->place), image);
    return length < (int)sizeof(path) && stat(path, &status) == 0;
}

struct fl_listener *fl_listener_find(struct fl_acceptor *acceptor, const char *path)
{
    struct fl_listener *listener;
    cds_list_for_each_entry(listener, &acceptor->listeners, link)
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

static struct fl_listener *new_listener(struct fl_acceptor *acceptor, const char *image,
                                        const char *path)
{
    struct fl_listener *listener = calloc(1, sizeof(*listener));
    if (!listener)
        return NULL;
    listener->image = strdup(image);
    listener->path = strdup(path);
    listener->acceptor = acceptor;
    listener->listening.fd = -1;
    if (listener->image && listener->path)
        return listener;
    free_listener(listener);
    return NULL;
}

static int describe_listener(struct fl_listener *listener)
{
    struct fl_endpoint endpoint = {.magic = FL_ENDPOINT_MAGIC,
                                   .version = FL_ENDPOINT_VERSION,
                                   .automatic = listener->automatic,
                                   .dev = listener->listening.dev,
                                   .ino = listener->listening.ino,
                                   .policy = listener->choices.policy,
                                   .huge = listener->choices.huge,
                                   .purpose = listener->purpose,
                                   .has_access = 1,
                                   .mode = listener->access.mode,
                                   .uid = listener->access.uid,
                                   .gid = listener->access.gid};
    snprintf(endpoint.image, sizeof(endpoint.image), "%s", listener->image);
    snprintf(endpoint.path, sizeof(endpoint.path), "%s", listener->path);
    return fl_endpoint_write(&endpoint);
}

// The description is the keeper's alone: one descriptor less an image.
static int put_record(struct fl_listener *listener)
{
    struct fl_keeper_link *keeper_link = listener->acceptor->engine->keeper_link;
    int endpoint = fl_keeper_link_any(keeper_link) ? describe_listener(listener) : -1;
    if (endpoint >= 0)
        fl_keeper_link_put_listener(keeper_link, listener->id, listener->listening.fd, endpoint);
    if (endpoint >= 0)
        close(endpoint);
    return endpoint < 0 && fl_keeper_link_any(keeper_link) ? endpoint : 0;
}

// Before the first connection: one that is accepted refers to the record.
static int keep_listener(struct fl_listener *listener)
{
    listener->id = fl_keeper_link_new_id(listener->acceptor->engine->keeper_link);
    return put_record(listener);
}

// Writes down anew what has changed.
void fl_listener_write_down(struct fl_listener *listener)
{
    int error = put_record(listener);
    if (error)
        fl_log(FL_LOG_ERROR, "event=listen_failed image=%s socket=%s reason=\"%s\"",
               listener->image, listener->path, strerror(-error));
}

// Its socket, for the first time.
int fl_listener_open(struct fl_listener *listener)
{
    struct fl_acceptor *acceptor = listener->acceptor;
    if (acceptor->shut || (listener->automatic && !fl_room_to_listen(acceptor)))
        return -EMFILE;
    int error =
        fl_socket_listen(listener->path, SOCK_STREAM, &listener->access, &listener->listening);
    if (!error)
        error = keep_listener(listener);
    if (!error)
        error = fl_listener_watch(listener);
    if (error && listener->listening.fd >= 0) // clients would find it, and wait for ever
        fl_listener_close_socket(listener);
    return error;
}

// Takes the listener. One of an image of the store stays without a socket until there can be one.
static int begin_listener(struct fl_listener *listener, const struct fl_socket_access *access,
                          const char **ret_reason)
{
    listener->access = *access;
    listener->seen = true;
    cds_list_add_tail(&listener->link, &listener->acceptor->listeners);
    int error = fl_listener_open(listener);
    if (!error)
        fl_log(FL_LOG_INFO, "event=listen image=%s socket=%s", listener->image, listener->path);
    else
        *ret_reason = fl_listener_why(error);
    listener->away = error != 0;
    if (error && !(listener->automatic && listener->listening.fd < 0))
        close_listener(listener);
    return error;
}

int fl_listener_add(struct fl_acceptor *acceptor, const char *image, const char *path,
                    const struct fl_socket_access *access, const struct fl_choices *choices,
                    bool automatic, const char **ret_reason)
{
    struct fl_listener *listener = new_listener(acceptor, image, path);
    if (!listener) {
        *ret_reason = fl_listener_why(-ENOMEM);
        return -ENOMEM;
    }
    listener->automatic = automatic;
    listener->choices = *choices;
    return begin_listener(listener, access, ret_reason);
}

int fl_listener_add_template(struct fl_acceptor *acceptor, const char *image, const char *path,
                             const struct fl_socket_access *access, const char **ret_reason)
{
    struct fl_listener *listener = new_listener(acceptor, image, path);
    if (!listener) {
        *ret_reason = fl_listener_why(-ENOMEM);
        return -ENOMEM;
    }
    listener->purpose = FL_PURPOSE_TEMPLATE;
    return begin_listener(listener, access, ret_reason);
}

void fl_listener_adopt(struct fl_acceptor *acceptor, uint64_t id, int fds[FL_CHANNEL_FDS])
{
    struct fl_endpoint endpoint;
    bool whole = fds[0] >= 0 && fds[1] >= 0 && fl_endpoint_read(fds[1], &endpoint) == 0;
    struct fl_listener *listener =
        whole ? new_listener(acceptor, endpoint.image, endpoint.path) : NULL;
    if (!listener) {
        fl_log(FL_LOG_ERROR, "event=adopt_failed listener=%" PRIu64, id);
        fl_keeper_link_drop(acceptor->engine->keeper_link, FL_RECORD_LISTENER, id);
        return;
    }
    listener->id = id;
    listener->automatic = endpoint.automatic != 0;
    listener->choices =
        (struct fl_choices){(enum fl_policy)endpoint.policy, (enum fl_huge)endpoint.huge};
    listener->purpose = (enum fl_purpose)endpoint.purpose;
    listener->access = acceptor->access; // what a version before did not write down
    if (endpoint.has_access)
        listener->access = (struct fl_socket_access){(mode_t)endpoint.mode, (uid_t)endpoint.uid,
                                                     (gid_t)endpoint.gid};
    listener->listening =
        (struct fl_listening){.fd = fds[0], .dev = endpoint.dev, .ino = endpoint.ino};
    fds[0] = -1;
    listener->seen = true;
    listener->adopted = true;
    cds_list_add_tail(&listener->link, &acceptor->listeners);
    int error = fl_listener_watch(listener);
    if (error)
        fl_log(FL_LOG_ERROR, "event=listen_failed image=%s socket=%s reason=\"%s\"",
               listener->image, listener->path, strerror(-error));
}

void fl_listeners_keep(struct fl_acceptor *acceptor)
{
    struct fl_listener *listener;
    cds_list_for_each_entry(listener, &acceptor->listeners, link)
    {
        if (listener->listening.fd >= 0)
            fl_listener_write_down(listener);
    }
}

int fl_listener_set_access(struct fl_listener *listener, const struct fl_socket_access *access)
{
    int error = fl_socket_set_access(listener->path, &listener->listening, access);
    if (error)
        return error;
    listener->access = *access;
    fl_listener_write_down(listener);
    return 0;
}

void fl_listeners_close(struct fl_acceptor *acceptor)
{
    struct fl_listener *listener;
    struct fl_listener *next;
    cds_list_for_each_entry_safe(listener, next, &acceptor->listeners, link)
        close_listener(listener);
}

void fl_listeners_close_automatic(struct fl_acceptor *acceptor, const char *image)
{
    struct fl_listener *listener;
    struct fl_listener *next;
    cds_list_for_each_entry_safe(listener, next, &acceptor->listeners, link)
    {
        if (listener->automatic && strcmp(listener->image, image) == 0)
            fl_listener_remove(listener);
    }
}

// Marks the listeners of the image; true if one of them is automatic.
static bool mark_listeners(struct fl_acceptor *acceptor, const char *image)
{
    bool automatic = false;
    struct fl_listener *listener;
    cds_list_for_each_entry(listener, &acceptor->listeners, link)
    {
        if (strcmp(listener->image, image) != 0)
            continue;
        listener->seen = true;
        automatic = automatic || listener->automatic;
    }
    return automatic;
}

static void add_automatic(struct fl_acceptor *acceptor, const char *image)
{
    static const struct fl_choices none = {0};
    char path[PATH_MAX];
    const char *reason = NULL;
    int error = 0;
    int length = snprintf(path, sizeof(path), "%s/%s" FL_SOCKET_SUFFIX, acceptor->directory, image);
    if (length >= (int)sizeof(path))
        reason = "its path is too long";
    else
        error = fl_listener_add(acceptor, image, path, &acceptor->access, &none, true, &reason);
    if (reason && error != -EMFILE) // of many it is said at once
        fl_log(FL_LOG_ERROR, "event=listen_failed image=%s socket=%s/%s.sock reason=\"%s\"", image,
               acceptor->directory, image, reason);
}

void fl_listeners_follow(struct fl_acceptor *acceptor, char *const *images, unsigned count)
{
    struct fl_listener *listener;
    struct fl_listener *next;
    cds_list_for_each_entry(listener, &acceptor->listeners, link) listener->seen = false;
    for (unsigned i = 0; i < count; i++) {
        if (!mark_listeners(acceptor, images[i]))
            add_automatic(acceptor, images[i]);
    }
    cds_list_for_each_entry_safe(listener, next, &acceptor->listeners, link)
    {
        // The list may be older than the image, and than the order to listen for it.
        if (!listener->seen && !fl_listener_image_exists(acceptor, listener->image))
            fl_listener_remove(listener);
    }
    fl_templates_follow(acceptor->engine->templates);
}
