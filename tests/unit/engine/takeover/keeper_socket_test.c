// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/accept/acceptor.h"
#include "engine/base/loop.h"
#include "engine/link/inherited_sockets.h"
#include "engine/takeover/keeper_socket.h"
#include "engine/takeover/takeover.h"

TestSuite(keeper_socket, .timeout = 30);

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
    cr_expect(fl_keeper_socket_is_there(socket));
    fl_keeper_socket_stop(socket);
    fl_loop_close(&loop);
    cr_assert_eq(rmdir(directory), 0);
}
