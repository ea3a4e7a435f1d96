// SPDX-License-Identifier: Apache-2.0
#include "engine/follow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/engine.h"
#include "engine/io_pool.h"
#include "engine/kept.h"
#include "engine/listen.h"
#include "engine/log.h"
#include "engine/mailbox.h"
#include "snapshot/read.h"

struct names {
    char **name;
    unsigned count;
};

struct fl_follow {
    struct fl_source source; // inotify
    struct fl_server *server;
    bool looking; // a reader lists the store
    bool changed; // since it began
    bool stopped; // free it when the reader is back
    // The reader's while it looks:
    struct fl_io_job job;
    struct fl_mail mail;
    struct names names;
    int error;
};

static void free_names(struct names *names)
{
    while (names->count > 0)
        free(names->name[--names->count]);
    free(names->name);
    names->name = NULL;
}

static int add_name(void *arg, const char *name)
{
    struct names *names = arg;
    char **more = realloc(names->name, (names->count + 1) * sizeof(*more));
    if (!more)
        return -ENOMEM;
    names->name = more;
    more[names->count] = strdup(name);
    if (!more[names->count])
        return -ENOMEM;
    names->count++;
    return 0;
}

static void look(struct fl_follow *follow);

static void apply(struct fl_follow *follow)
{
    if (follow->error)
        fl_log(FL_LOG_ERROR,
               "event=store_failed store=%s reason=\"its images cannot be listed: %s\"",
               follow->server->options->store, strerror(-follow->error));
    else if (!follow->server->refusing)
        fl_listeners_follow(follow->server, follow->names.name, follow->names.count);
    free_names(&follow->names);
}

static void looked(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_follow *follow = caa_container_of(mail, struct fl_follow, mail);
    follow->looking = false;
    if (follow->stopped) {
        free_names(&follow->names);
        free(follow);
        return;
    }
    apply(follow);
    if (follow->changed)
        look(follow);
}

// Reader thread: a directory on a slow disk must not hold up handshakes.
static uint64_t list(struct fl_io_job *job)
{
    struct fl_follow *follow = caa_container_of(job, struct fl_follow, job);
    struct fl_server *server = follow->server;
    follow->error = fl_reader_list(server->reader, add_name, &follow->names);
    follow->mail.deliver = looked;
    fl_mailbox_post(&server->engine->control, &follow->mail);
    return 0;
}

static void look(struct fl_follow *follow)
{
    follow->changed = follow->looking;
    if (follow->looking)
        return;
    follow->looking = true;
    follow->job.run = list;
    fl_io_pool_submit(follow->server->engine->io_pool, &follow->job);
}

static void ready(struct fl_source *source, uint32_t events)
{
    (void)events;
    char buf[4096] __attribute__((aligned(8)));
    while (read(source->fd, buf, sizeof(buf)) > 0) {
    }
    look(caa_container_of(source, struct fl_follow, source));
}

// A predecessor's, or a new one that a successor goes on with.
static int open_inotify(struct fl_server *server)
{
    int *kept = &server->inherited[FL_SOCKET_INOTIFY];
    if (*kept >= 0)
        return *kept;
    *kept = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (*kept >= 0)
        fl_kept_put_socket(server->engine->kept, FL_SOCKET_INOTIFY, *kept);
    return *kept;
}

int fl_follow_start(struct fl_server *server, struct fl_follow **ret_follow)
{
    struct fl_follow *follow = calloc(1, sizeof(*follow));
    if (!follow)
        return -ENOMEM;
    follow->server = server;
    follow->source = (struct fl_source){.fd = open_inotify(server), .ready = ready};
    int error = follow->source.fd < 0 ? -errno : 0;
    // IN_CREATE: where a file system cannot rename without replacing, images appear as links.
    if (!error && inotify_add_watch(follow->source.fd, fl_reader_images_dir(server->reader),
                                    IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE) < 0)
        error = -errno;
    if (!error)
        error = fl_server_watch(server, &follow->source, EPOLLIN);
    if (error) {
        if (follow->source.fd >= 0)
            close(follow->source.fd);
        free(follow);
        return error;
    }
    follow->error = fl_reader_list(server->reader, add_name, &follow->names);
    apply(follow);
    *ret_follow = follow;
    return 0;
}

void fl_follow_stop(struct fl_follow *follow)
{
    if (!follow)
        return;
    fl_server_unwatch(follow->server, &follow->source);
    close(follow->source.fd);
    follow->stopped = true;
    if (!follow->looking)
        free(follow);
}
