// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/accept/acceptor.h"
#include "engine/base/loop.h"
#include "engine/base/unix_socket.h"
#include "engine/link/inherited_sockets.h"
#include "engine/takeover/keeper_socket.h"
#include "engine/takeover/takeover.h"

TestSuite(keeper_socket, .timeout = 30);

enum { ENDLESS = 100 };

// The epoll cannot take the socket (fs.epoll.max_user_watches): the next attempt must not close
// what has the number of its descriptor by then.
Test(keeper_socket, one_that_cannot_be_watched_is_forgotten)
{
    char directory[512];
    char control[600];
    char path[700];
    struct fl_error error;
    struct fl_loop loop = {-1};
    struct fl_inherited_sockets sockets;
    struct fl_acceptor acceptor = {.loop = &loop, .sockets = &sockets};
    struct fl_takeover takeover = {.acceptor = &acceptor};
    struct fl_keeper_socket *socket = NULL;
    snprintf(directory, sizeof(directory), "%s/faultline-keeper-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    cr_assert_not_null(mkdtemp(directory));
    snprintf(control, sizeof(control), "%s/control.sock", directory);
    snprintf(path, sizeof(path), "%s" FL_KEEPER_SUFFIX, control);
    fl_inherited_sockets_init(&sockets);

    cr_assert_eq(fl_keeper_socket_start(&takeover, control, &socket, &error), -EBADF);
    cr_assert_neq(access(path, F_OK), 0);
    cr_expect_eq(sockets.fd[FL_SOCKET_KEEPER], -1);
    int others[8];
    for (unsigned i = 0; i < 8; i++)
        others[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cr_assert_eq(fl_loop_open(&loop), 0);
    cr_assert_eq(fl_keeper_socket_start(&takeover, control, &socket, &error), 0, "%s", error.text);
    for (unsigned i = 0; i < 8; i++) {
        cr_expect_geq(fcntl(others[i], F_GETFD), 0, "it was closed");
        close(others[i]);
    }
    cr_expect(fl_keeper_socket_look(socket));
    fl_keeper_socket_stop(socket);
    fl_loop_close(&loop);
    cr_assert_eq(rmdir(directory), 0);
}

// Each event that there is now.
static unsigned events_of(struct fl_loop *loop)
{
    static const struct timespec at_once;
    struct fl_source *source;
    uint32_t events = 0;
    unsigned count = 0;
    while (count < ENDLESS && (source = fl_loop_wait(loop, &at_once, &events)) != NULL) {
        source->ready(source, events);
        count++;
    }
    return count;
}

// A visitor for whom there is no descriptor waits, and does not keep the loop busy.
Test(keeper_socket, one_that_can_accept_nothing_waits)
{
    char directory[512];
    char control[600];
    char path[700];
    struct fl_error error;
    struct fl_loop loop = {-1};
    struct fl_inherited_sockets sockets;
    struct fl_acceptor acceptor = {.loop = &loop, .sockets = &sockets};
    struct fl_takeover takeover = {.acceptor = &acceptor};
    struct fl_keeper_socket *socket = NULL;
    struct rlimit before;
    snprintf(directory, sizeof(directory), "%s/faultline-keeper-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    cr_assert_not_null(mkdtemp(directory));
    snprintf(control, sizeof(control), "%s/control.sock", directory);
    snprintf(path, sizeof(path), "%s" FL_KEEPER_SUFFIX, control);
    fl_inherited_sockets_init(&sockets);
    cr_assert_eq(fl_loop_open(&loop), 0);
    cr_assert_eq(fl_keeper_socket_start(&takeover, control, &socket, &error), 0, "%s", error.text);

    int visitor = fl_socket_connect(path, SOCK_SEQPACKET);
    cr_assert_geq(visitor, 0);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit none = {.rlim_cur = 3, .rlim_max = before.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    cr_expect_eq(events_of(&loop), 1);
    cr_expect(fl_keeper_socket_look(socket));
    cr_expect_eq(events_of(&loop), 1); // and waits again
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    cr_expect(fl_keeper_socket_look(socket));
    cr_expect_eq(events_of(&loop), 1); // it is accepted
    close(visitor);
    cr_expect_eq(events_of(&loop), 1); // and has left
    fl_keeper_socket_stop(socket);
    fl_loop_close(&loop);
    cr_assert_eq(rmdir(directory), 0);
}
