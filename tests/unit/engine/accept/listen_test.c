// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/accept/accept.h"
#include "engine/accept/acceptor.h"
#include "engine/accept/listen.h"
#include "engine/accept/listener.h"
#include "engine/base/loop.h"

TestSuite(listen, .timeout = 30);

static char directory[512];
static char path[600];
static struct fl_engine engine;
static struct fl_loop loop = {-1};
static struct fl_acceptor acceptor = {.engine = &engine,
                                      .loop = &loop,
                                      .directory = directory,
                                      .access = {0600, (uid_t)-1, (gid_t)-1},
                                      .state = FL_SERVICE_OPEN};

static void make_directory(void)
{
    snprintf(directory, sizeof(directory), "%s/faultline-listen-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/image.sock", directory);
    CDS_INIT_LIST_HEAD(&acceptor.listeners);
    CDS_INIT_LIST_HEAD(&acceptor.connections);
}

static void remove_directory(void)
{
    fl_listeners_close(&acceptor);
    fl_loop_close(&loop);
    cr_assert_eq(rmdir(directory), 0);
}

// A client that connects is heard.
static void check_watched(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timespec patience = {.tv_sec = 20};
    uint32_t events = 0;
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_lt(strlen(path), sizeof(address.sun_path));
    memcpy(address.sun_path, path, strlen(path) + 1);
    cr_assert_eq(connect(client, (const struct sockaddr *)&address, sizeof(address)), 0);
    struct fl_listener *listener = fl_listener_find(&acceptor, path);
    cr_expect_eq(fl_loop_wait(&loop, &patience, &events), &listener->source);
    close(client);
}

static void check_without_socket(void)
{
    const struct fl_listener *listener = fl_listener_find(&acceptor, path);
    cr_assert_not_null(listener);
    cr_expect(listener->away);
    cr_expect_eq(listener->listening.fd, -1);
    cr_expect_neq(access(path, F_OK), 0, "clients find a socket that is not heard");
}

// The epoll cannot take the socket of an image (fs.epoll.max_user_watches).
Test(listen, a_new_socket_that_cannot_be_watched, .init = make_directory, .fini = remove_directory)
{
    const char *reason = NULL;
    cr_assert_eq(fl_listener_add(&acceptor, "image", path, &acceptor.access,
                                 &(struct fl_choices){0}, true, &reason),
                 -EBADF);
    check_without_socket();
    cr_assert_eq(fl_loop_open(&loop), 0);
    fl_listeners_look(&acceptor);
    check_watched();
}

Test(listen, a_socket_made_again_that_cannot_be_watched, .init = make_directory,
     .fini = remove_directory)
{
    const char *reason = NULL;
    cr_assert_eq(fl_loop_open(&loop), 0);
    cr_assert_eq(fl_listener_add(&acceptor, "image", path, &acceptor.access,
                                 &(struct fl_choices){0}, true, &reason),
                 0);
    cr_assert_eq(unlink(path), 0);
    fl_loop_close(&loop);
    fl_listeners_look(&acceptor);
    check_without_socket();
    cr_assert_eq(fl_loop_open(&loop), 0);
    fl_listeners_look(&acceptor);
    check_watched();
}

Test(listen, a_socket_that_cannot_be_watched_after_a_pause, .init = make_directory,
     .fini = remove_directory)
{
    const char *reason = NULL;
    cr_assert_eq(fl_loop_open(&loop), 0);
    cr_assert_eq(fl_listener_add(&acceptor, "image", path, &acceptor.access,
                                 &(struct fl_choices){0}, true, &reason),
                 0);
    fl_listeners_pause(&acceptor);
    fl_loop_close(&loop);
    fl_listeners_resume(&acceptor);
    cr_expect_neq(access(path, F_OK), 0, "clients find a socket that is not heard");
    cr_assert_eq(fl_loop_open(&loop), 0);
    fl_listeners_look(&acceptor);
    check_watched();
}
