// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. One look at a time: a reader has the watch from run_look() until
// store_looked_at(), and then it alone touches what stands under "The reader's" in the struct. An
// event that comes meanwhile is noted (`changed`), and one more look follows.
//
// An image of which a pack is missing gets no socket: a restore then fails at connect(), at once.
// Nothing tells when packs come or go. So whenever the images are listed each is looked at, and
// those that lack a pack every second. So is an image on offer: nothing tells when the process that
// packs it ends. The first look, for which the server's start waits, takes
// PATIENCE at most for that, and a second one does the rest.
#include "engine/accept/store_watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/accept/listen.h"
#include "engine/base/clock.h"
#include "engine/base/descriptors.h"
#include "engine/base/io_pool.h"
#include "engine/base/loop.h"
#include "engine/base/mailbox.h"
#include "engine/image/images.h"
#include "engine/image/store_place.h"
#include "engine/link/degraded.h"
#include "engine/link/inherited_sockets.h"
#include "engine/worker/engine.h"
#include "snapshot/read.h"

#define PATIENCE (500 * FL_NS_PER_MS)

struct names {
    char **name;
    unsigned count;
};

struct fl_store_watch {
    struct fl_source source; // inotify; .fd -1: it cannot be had
    struct fl_acceptor *acceptor;
    bool looking;   // a reader looks at the store
    bool changed;   // something has, since the reader began
    int open_error; // why there is no inotify instance, or none that is heard
    // The reader's while it looks:
    struct fl_io_job job;
    struct fl_mail mail;
    struct fl_reader *listing; // the store that is being listed
    struct fl_reader *seen;    // the store that was there at the last look; NULL: none
    bool wanted;               // to list the images even if it is the same store
    bool listed;
    struct names names;   // of images that can be used
    struct names offered; // of these, those that are still packed
    struct names lacking; // of those that lack a pack, at the last look
    struct names before;  // at the one before
    bool each;            // every image is looked at
    uint64_t until_ns;    // for how long
    bool unfinished;      // it was too long
    int error;
    int watch_error;
};

static void free_names(struct names *names)
{
    while (names->count > 0)
        free(names->name[--names->count]);
    free(names->name);
    names->name = NULL;
}

static int append_name(struct names *names, const char *name)
{
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

static bool has_name(const struct names *names, const char *name)
{
    unsigned i = 0;
    while (i < names->count && strcmp(names->name[i], name) != 0)
        i++;
    return i < names->count;
}

static void look_at_store(struct fl_store_watch *watch, bool wanted);

// --- in a reader thread ---

// The directory at the path, whether it was watched before or not: then this does nothing.
static int watch_images(const struct fl_store_watch *watch)
{
    const char *path = fl_store_images_dir(watch->acceptor->place);
    if (watch->source.fd < 0)
        return watch->open_error;
    // IN_CREATE: where a file system cannot rename without replacing, images appear as links.
    return inotify_add_watch(watch->source.fd, path,
                             IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF |
                                 IN_MOVE_SELF | IN_ONLYDIR) < 0
               ? -errno
               : 0;
}

static int add_offered(void *arg, const char *name)
{
    struct fl_store_watch *watch = arg;
    int error = append_name(&watch->offered, name);
    return error ? error : append_name(&watch->names, name);
}

static int add_name(void *arg, const char *name)
{
    struct fl_store_watch *watch = arg;
    if (has_name(&watch->offered, name)) // it was published in between
        return 0;
    bool late = fl_now() > watch->until_ns;
    bool wanted = watch->each || has_name(&watch->before, name);
    watch->unfinished = watch->unfinished || (wanted && late);
    bool lacks = wanted && !late && fl_image_look(watch->listing, name) == -ESTALE;
    return append_name(lacks ? &watch->lacking : &watch->names, name);
}

// Those that lacked a pack are looked at in any case.
static int list_images(struct fl_store_watch *watch, struct fl_reader *reader, bool each)
{
    watch->each = each;
    watch->listing = reader;
    watch->unfinished = false;
    free_names(&watch->before);
    watch->before = watch->lacking;
    watch->lacking = (struct names){NULL, 0};
    free_names(&watch->offered);
    int error = fl_reader_list_offered(reader, add_offered, watch);
    return error ? error : fl_reader_list(reader, add_name, watch);
}

// The watch comes first: what changes after the list was made is an event. What changed before the
// first watch, and after the list before that, is none.
static void read_store(struct fl_store_watch *watch)
{
    struct fl_reader *reader = NULL;
    watch->listed = false;
    watch->error = fl_store_place_get(watch->acceptor->place, &reader);
    if (!watch->error) {
        bool blind = watch->watch_error != 0;
        watch->watch_error = watch_images(watch);
        bool each = reader != watch->seen || watch->wanted || watch->watch_error || blind;
        if (each || watch->lacking.count > 0 || watch->offered.count > 0) {
            watch->error = list_images(watch, reader, each);
            watch->listed = watch->error == 0;
            watch->wanted = !watch->listed;
        }
    }
    fl_reader_close(watch->seen);
    watch->seen = reader;
    fl_images_settle(watch->acceptor->engine->images);
}

// --- in the control thread ---

// The limit that was met, by name: the user's instances and watches, or our descriptors.
static const char *inotify_trouble(const struct fl_store_watch *watch)
{
    int error = watch->watch_error;
    if (error == -ENOSPC && watch->open_error == -ENOSPC)
        return "the limit fs.epoll.max_user_watches of its user is reached";
    if (error == -ENOSPC)
        return "the limit fs.inotify.max_user_watches of its user is reached";
    if (error == -EMFILE && fl_descriptors_free(1))
        return "the limit fs.inotify.max_user_instances of its user is reached";
    return strerror(-error);
}

static void say_how_it_is(struct fl_store_watch *watch)
{
    struct fl_engine *engine = watch->acceptor->engine;
    struct fl_error why;
    fl_store_place_why(watch->acceptor->place, &why);
    if (watch->error == FL_NO_STORE_NOW)
        fl_lacks(&engine->degraded, FL_LACK_STORE, "%s", why.text);
    else if (watch->error)
        fl_lacks(&engine->degraded, FL_LACK_STORE,
                 "the images of the store %s cannot be listed: %s", watch->acceptor->store,
                 strerror(-watch->error));
    else
        fl_has(&engine->degraded, FL_LACK_STORE);
    if (watch->watch_error)
        fl_lacks(&engine->degraded, FL_LACK_INOTIFY,
                 "the store %s cannot be watched, and is looked at once a second instead: %s",
                 watch->acceptor->store, inotify_trouble(watch));
    else
        fl_has(&engine->degraded, FL_LACK_INOTIFY);
}

// Before new ones are made: there may be just room for those.
static void close_sockets_of_lacking(struct fl_store_watch *watch)
{
    struct fl_engine *engine = watch->acceptor->engine;
    unsigned count = watch->lacking.count;
    for (unsigned i = 0; i < count; i++)
        fl_listeners_close_automatic(watch->acceptor, watch->lacking.name[i]);
    if (count == 0)
        fl_has(&engine->degraded, FL_LACK_IMAGES);
    else if (count == 1)
        fl_lacks(&engine->degraded, FL_LACK_IMAGES,
                 "image '%s' cannot be used, and has no socket: a pack that it needs is missing",
                 watch->lacking.name[0]);
    else
        fl_lacks(&engine->degraded, FL_LACK_IMAGES,
                 "%u images cannot be used, and have no sockets, image '%s' among them: packs that "
                 "they need are missing ('faultline ls' names them)",
                 count, watch->lacking.name[0]);
}

static void apply_look(struct fl_store_watch *watch)
{
    say_how_it_is(watch);
    if (watch->listed)
        close_sockets_of_lacking(watch);
    if (watch->listed && !fl_service_refuses(watch->acceptor->state))
        fl_listeners_follow(watch->acceptor, watch->names.name, watch->names.count);
    free_names(&watch->names);
}

static void store_looked_at(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_store_watch *watch = caa_container_of(mail, struct fl_store_watch, mail);
    watch->looking = false;
    apply_look(watch);
    if (watch->changed)
        look_at_store(watch, true);
}

// A directory on a slow disk must not hold up handshakes.
static uint64_t run_look(struct fl_io_job *job)
{
    struct fl_store_watch *watch = caa_container_of(job, struct fl_store_watch, job);
    read_store(watch);
    watch->mail.deliver = store_looked_at;
    fl_mailbox_post(&watch->acceptor->engine->control, &watch->mail);
    return 0;
}

static void look_at_store(struct fl_store_watch *watch, bool wanted)
{
    watch->changed = wanted && watch->looking;
    if (watch->looking)
        return;
    watch->looking = true;
    watch->wanted = watch->wanted || wanted;
    watch->job.run = run_look;
    fl_io_pool_submit(watch->acceptor->engine->io_pool, &watch->job);
}

static void inotify_ready(struct fl_source *source, uint32_t events)
{
    (void)events;
    char buf[4096] __attribute__((aligned(8)));
    while (read(source->fd, buf, sizeof(buf)) > 0) {
    }
    look_at_store(caa_container_of(source, struct fl_store_watch, source), true);
}

// A predecessor's, or a new one that a successor goes on with.
static void open_inotify(struct fl_store_watch *watch)
{
    struct fl_acceptor *acceptor = watch->acceptor;
    int inotify = acceptor->sockets->fd[FL_SOCKET_INOTIFY];
    bool new = inotify < 0;
    if (new)
        inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    watch->open_error = inotify < 0 ? -errno : 0;
    watch->source = (struct fl_source){.fd = inotify, .ready = inotify_ready};
    if (inotify < 0)
        return;
    if (new)
        fl_inherited_sockets_replace(acceptor->sockets, FL_SOCKET_INOTIFY, inotify);
    watch->open_error = fl_loop_watch(acceptor->loop, &watch->source, EPOLLIN);
    if (watch->open_error) // it stays in the table, for the next attempt
        watch->source.fd = -1;
}

bool fl_store_watch_stirs(const struct fl_store_watch *watch)
{
    return watch && !watch->looking && watch->offered.count > 0;
}

void fl_store_watch_look(struct fl_store_watch *watch)
{
    if (!watch)
        return;
    if (watch->source.fd < 0 && !watch->looking)
        open_inotify(watch);
    look_at_store(watch, false);
}

int fl_store_watch_start(struct fl_acceptor *acceptor, bool first,
                         struct fl_store_watch **ret_follow)
{
    struct fl_store_watch *watch = calloc(1, sizeof(*watch));
    if (!watch)
        return -ENOMEM;
    watch->acceptor = acceptor;
    watch->until_ns = FL_NEVER;
    open_inotify(watch);
    *ret_follow = watch;
    if (!first) {
        look_at_store(watch, true);
        return 0;
    }
    watch->until_ns = fl_now() + PATIENCE;
    read_store(watch);
    watch->until_ns = FL_NEVER;
    if (!watch->error)
        apply_look(watch);
    if (watch->unfinished)
        look_at_store(watch, true);
    return watch->error;
}

void fl_store_watch_stop(struct fl_store_watch *watch)
{
    if (!watch)
        return;
    if (watch->source.fd >= 0) {
        fl_loop_unwatch(watch->acceptor->loop, &watch->source);
        close(watch->source.fd);
    }
    fl_reader_close(watch->seen);
    free_names(&watch->names);
    free_names(&watch->offered);
    free_names(&watch->lacking);
    free_names(&watch->before);
    free(watch);
}
