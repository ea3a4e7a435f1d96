// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/listen.h"
#include "engine/accept/store_watch.h"
#include "engine/base/io_pool.h"
#include "engine/base/loop.h"
#include "engine/image/images.h"
#include "engine/image/store_place.h"
#include "engine/link/inherited_sockets.h"
#include "snapshot/store.h"

TestSuite(store_watch, .timeout = 60);

static char directory[512];
static struct fl_engine engine;
static struct fl_loop loop = {-1};
static struct fl_inherited_sockets sockets;
static struct fl_acceptor acceptor = {
    .engine = &engine, .loop = &loop, .sockets = &sockets, .access = {0600, (uid_t)-1, (gid_t)-1}};

static const char *in_directory(const char *name)
{
    static char path[4][1024];
    static unsigned next;
    char *to = path[next++ % 4];
    snprintf(to, sizeof(path[0]), "%s/%s", directory, name);
    return to;
}

static void make_store(void)
{
    struct fl_error error;
    struct fl_store *store = NULL;
    snprintf(directory, sizeof(directory), "%s/faultline-watch-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    cr_assert_not_null(mkdtemp(directory));
    cr_assert_eq(fl_store_open(in_directory("store"), true, &store, &error), 0, "%s", error.text);
    fl_store_close(store);
}

static void remove_store(void)
{
    char command[600];
    snprintf(command, sizeof(command), "rm -r '%s'", directory);
    cr_assert_eq(system(command), 0);
}

static void add_image(const char *name)
{
    int fd = open(in_directory(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
}

static void await_look(void)
{
    struct pollfd mail = {.fd = engine.control.event_fd, .events = POLLIN};
    if (fl_mailbox_sleep(&engine.control)) {
        cr_assert_eq(poll(&mail, 1, 30000), 1, "the reader does not come back");
        fl_mailbox_awake(&engine.control);
    }
    fl_mailbox_drain(&engine.control, &engine);
}

// The epoll cannot take the inotify instance (fs.epoll.max_user_watches): that is said, and it is
// tried again. An image that comes between the last list and the watch is not lost.
Test(store_watch, inotify_is_to_be_had_later, .init = make_store, .fini = remove_store)
{
    struct fl_store_watch *watch = NULL;
    char sockets_directory[1024];
    snprintf(sockets_directory, sizeof(sockets_directory), "%s", in_directory("sockets"));
    cr_assert_eq(mkdir(sockets_directory, 0700), 0);
    acceptor.store = in_directory("store");
    acceptor.directory = sockets_directory;
    acceptor.state = FL_SERVICE_OPEN;
    CDS_INIT_LIST_HEAD(&acceptor.listeners);
    CDS_INIT_LIST_HEAD(&acceptor.connections);
    fl_inherited_sockets_init(&sockets);
    cr_assert_eq(fl_store_place_new(acceptor.store, &acceptor.place), 0);
    cr_assert_eq(fl_images_new(acceptor.place, NULL, &engine.images), 0);
    cr_assert_eq(fl_mailbox_init(&engine.control), 0);
    cr_assert_eq(fl_io_pool_start(1, &engine.io_pool), 0);

    cr_assert_eq(fl_store_watch_start(&acceptor, true, &watch), 0);
    cr_expect_str_not_empty(engine.degraded.reason[FL_LACK_INOTIFY]);
    fl_store_watch_look(watch);
    await_look();
    cr_expect_str_not_empty(engine.degraded.reason[FL_LACK_INOTIFY]);

    cr_assert_eq(fl_loop_open(&loop), 0);
    add_image("store/images/one.img");
    fl_store_watch_look(watch);
    await_look();
    cr_expect_not_null(fl_listener_find(&acceptor, in_directory("sockets/one.sock")));
    cr_expect_str_empty(engine.degraded.reason[FL_LACK_INOTIFY]);
    add_image("store/images/two.img");
    struct timespec patience = {.tv_sec = 30};
    uint32_t events = 0;
    while (!fl_listener_find(&acceptor, in_directory("sockets/two.sock"))) {
        struct fl_source *source = fl_loop_wait(&loop, &patience, &events);
        cr_assert_not_null(source, "no event came");
        source->ready(source, events);
        await_look();
    }

    fl_io_pool_stop(engine.io_pool);
    fl_listeners_close(&acceptor);
    fl_mailbox_fini(&engine.control);
    fl_store_watch_stop(watch);
    fl_images_free(engine.images);
    fl_store_place_free(acceptor.place);
    fl_loop_close(&loop);
}
