// SPDX-License-Identifier: Apache-2.0
//
// A keeper that dies in the middle of a word to an engine: the test is the keeper.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/link/channel.h"
#include "engine/link/endpoint_memfd.h"
#include "tests/support/world.h"

TestSuite(last_word, .init = need_userfaultfd, .fini = world_close, .timeout = 120);

static struct world *world;
static struct server engine;

static _Noreturn void be_engine(int channel, int log)
{
    const char *args[] = {getenv("FAULTLINE_BIN"),
                          "engine",
                          "--store",
                          world->store,
                          "--sockets",
                          temp_path(&world->temp, "sockets"),
                          "--control",
                          temp_path(&world->temp, "control.sock"),
                          "--cache-prealloc",
                          "64M",
                          NULL};
    child_setup();
    dup2(log, STDERR_FILENO);
    dup2(channel, FL_ENGINE_CHANNEL);
    execv(args[0], (char *const *)(uintptr_t)args);
    _exit(127);
}

static int start_engine(void)
{
    int pair[2];
    world = world_make(DISTINCT, 1 << 20);
    world_pack(world, world->file, "image");
    mkdir(temp_path(&world->temp, "sockets"), 0700);
    snprintf(engine.log, sizeof(engine.log), "%s", temp_path(&world->temp, "engine.log"));
    int log = open(engine.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    cr_assert_geq(log, 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    engine.pid = fork();
    if (engine.pid == 0)
        be_engine(pair[1], log);
    cr_assert_gt(engine.pid, 0);
    close(pair[1]);
    close(log);
    return pair[0];
}

static struct fl_message message; // what was received last

static void await(int channel, uint32_t type)
{
    int fds[FL_CHANNEL_FDS];
    struct pollfd poll_fd = {.fd = channel, .events = POLLIN};
    do {
        cr_assert_eq(poll(&poll_fd, 1, TEST_DEADLINE_MS), 1, "the engine says nothing");
        cr_assert_eq(fl_channel_receive(channel, &message, fds, true), 1);
        fl_channel_close_fds(fds);
    } while (message.type != type);
}

static _Noreturn void be_client(int socket)
{
    struct uffdio_api api = {.api = UFFD_API};
    child_setup();
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0)
        _exit(1);
    vmm_send(socket, "[]", 2, &uffd, 1);
    for (;;)
        pause();
}

// A handshake that will be refused, and a userfaultfd that must be kept all the same, for as long
// as the client lives.
static int refused_handshake(int channel, pid_t *ret_client)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    *ret_client = fork();
    if (*ret_client == 0) {
        close(channel);
        close(pair[1]);
        be_client(pair[0]);
    }
    cr_assert_gt(*ret_client, 0);
    close(pair[0]);
    struct pollfd sent = {.fd = pair[1], .events = POLLIN};
    cr_assert_eq(poll(&sent, 1, TEST_DEADLINE_MS), 1, "the client sends nothing");
    return pair[1];
}

static void end_process(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

// Returns its client.
static pid_t send_connection(int channel)
{
    pid_t client = -1;
    struct fl_endpoint description = {.magic = FL_ENDPOINT_MAGIC,
                                      .version = FL_ENDPOINT_VERSION,
                                      .purpose = FL_PURPOSE_TEMPLATE, // is read at once
                                      .image = "image"};
    int fds[2] = {refused_handshake(channel, &client), fl_endpoint_write(&description)};
    struct fl_record_view record = {FL_RECORD_CONNECTION, 1, 0, 2, fds};
    uint32_t from = 0;
    cr_assert_eq(fl_channel_send_record(channel, FL_MESSAGE_RECORD, &record, 0, &from, true), 0);
    close(fds[0]);
    close(fds[1]);
    return client;
}

// The engine waits for the word that a VM is kept, and is told to serve first: it puts that aside,
// and the keeper dies. It begins once.
Test(last_word, to_serve_is_heard_once)
{
    struct fl_message serve = {.type = FL_MESSAGE_SERVE, .value = 1};
    int channel = start_engine();
    await(channel, FL_MESSAGE_READY);
    pid_t client = send_connection(channel);
    cr_assert_eq(fl_channel_send(channel, &serve, NULL, true), 0);
    await(channel, FL_MESSAGE_PUT);
    close(channel);
    cr_assert(server_wait_log(&engine, "event=keeper_lost", 1));
    const char *args[] = {"status", "--control", temp_path(&world->temp, "control.sock"), NULL};
    cr_expect_eq(faultline_run(NULL, 0, args), 0);
    cr_expect_eq(server_logs(&engine, "event=ready pid=", 1), 1);
    cr_expect_eq(waitpid(engine.pid, NULL, WNOHANG), 0, "it has ended");
    end_process(engine.pid);
    end_process(client);
}

static bool is_draining(void)
{
    static char status[65536];
    const char *args[] = {"status", "--json", "--control", temp_path(&world->temp, "control.sock"),
                          NULL};
    return faultline_run(status, sizeof(status), args) == 0 &&
           strstr(status, "\"draining\": true") != NULL;
}

// SIGTERM comes to a standby that has a VM already, and then the word to serve: it serves that one,
// takes no other, and ends with it.
Test(last_word, to_serve_comes_after_the_order_to_stop)
{
    int status = 0;
    struct fl_message serve = {.type = FL_MESSAGE_SERVE, .value = 2};
    int channel = start_engine();
    await(channel, FL_MESSAGE_READY);
    pid_t client = send_connection(channel);
    await(channel, FL_MESSAGE_PUT);
    struct fl_message kept = {.type = FL_MESSAGE_KEPT, .id = message.id};
    cr_assert_eq(fl_channel_send(channel, &kept, NULL, true), 0);
    cr_assert(server_wait_log(&engine, "event=refuse", 1));
    kill(engine.pid, SIGTERM);
    cr_assert(server_wait_log(&engine, "event=stopping", 1));
    cr_assert_eq(fl_channel_send(channel, &serve, NULL, true), 0);
    await(channel, FL_MESSAGE_SERVING);
    cr_expect_eq(message.value, 1, "it has lost the VM");
    cr_expect(is_draining());
    end_process(client);
    await(channel, FL_MESSAGE_ENDED);
    cr_expect_eq(waitpid(engine.pid, &status, 0), engine.pid);
    cr_expect(WIFEXITED(status));
    close(channel);
}

static void limit_engine(rlim_t soft, struct rlimit *ret_before)
{
    struct rlimit limit;
    cr_assert_eq(prlimit(engine.pid, RLIMIT_NOFILE, NULL, &limit), 0);
    *ret_before = limit;
    limit.rlim_cur = soft;
    cr_assert_eq(prlimit(engine.pid, RLIMIT_NOFILE, &limit, NULL), 0);
}

// The engine's table is full when the answer comes: the connection is the keeper's, and the keeper
// is not lost. It asks again for the same one.
Test(last_word, an_accepted_connection_that_has_no_room)
{
    struct fl_message serve = {.type = FL_MESSAGE_SERVE, .value = 1};
    struct rlimit before;
    int pair[2];
    int channel = start_engine();
    await(channel, FL_MESSAGE_READY);
    cr_assert_eq(fl_channel_send(channel, &serve, NULL, true), 0);
    await(channel, FL_MESSAGE_SERVING);
    int client = vmm_connect(temp_path(&world->temp, "sockets/image.sock"));
    await(channel, FL_MESSAGE_ACCEPT);
    struct fl_message accepted = {
        .type = FL_MESSAGE_ACCEPTED, .id = message.id, .slots = 1, .mask = 1};
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    limit_engine(3, &before);
    cr_assert_eq(fl_channel_send(channel, &accepted, &pair[1], true), 0);
    cr_assert(server_wait_log(&engine, "event=degraded what=descriptors", 1));
    limit_engine(before.rlim_cur, &before);
    await(channel, FL_MESSAGE_ACCEPT);
    cr_expect_eq(message.id, accepted.id, "it has forgotten the first one");
    cr_expect_eq(server_count_log(&engine, "event=keeper_lost"), 0);
    end_process(engine.pid);
    close(client);
    close(channel);
}
