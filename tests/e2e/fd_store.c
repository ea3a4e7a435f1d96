// SPDX-License-Identifier: Apache-2.0
//
// The whole service dies and comes back, and a service manager's store of descriptors has all that
// VMs need. The manager here is tests/support/notify_peer.h; tests/e2e/systemd has the real one.
#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/notify_peer.h"
#include "tests/support/stop.h"
#include "tests/support/world.h"

enum { BYTES = 16 << 20, CLIENTS = 4, STORE_MAX = 4096, TIMES = 4 };

TestSuite(fd_store, .init = need_userfaultfd, .fini = world_close, .timeout = 180);

static struct world *world;
static struct notify_peer *peer;

static void serve(void)
{
    static const char *argv[16];
    static char socket[2 * TEST_PATH];
    static const char *const environment[] = {"FAULTLINE_FDSTORE=1", NULL};
    world = world_make(MIXED, BYTES);
    world_pack(world, world->file, "image");
    snprintf(socket, sizeof(socket), "%s", temp_path(&world->temp, "sockets/image.sock"));
    snprintf(world->server.log, sizeof(world->server.log), "%s",
             temp_path(&world->temp, "serve.log"));
    world->socket = socket;
    unsigned count = 0;
    argv[count++] = getenv("FAULTLINE_BIN");
    argv[count++] = "serve";
    argv[count++] = "--store";
    argv[count++] = world->store;
    argv[count++] = "--sockets";
    argv[count++] = temp_path(&world->temp, "sockets");
    argv[count++] = "--control";
    argv[count++] = temp_path(&world->temp, "control.sock");
    peer = notify_peer_new(&(struct notify_peer_options){.argv = argv,
                                                         .environment = environment,
                                                         .log = world->server.log,
                                                         .store_max = STORE_MAX,
                                                         .watchdog_ms = TEST_DEADLINE_MS});
    cr_assert(notify_peer_start(peer, TEST_DEADLINE_MS));
}

// A removal, then reads of everything, at its own pace.
static int live(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 5);
    vmm_remove(&vmm, 0, vmm.pages / 4);
    for (uint32_t page = 0; page < vmm.pages / 4; page++)
        vmm.removed[page] = true;
    tell_test(channel, 't');
    await_test(channel, 'g');
    vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
    tell_test(channel, 'd');
    await_test(channel, 'e');
    return 0;
}

static bool nothing_is_kept(void *arg)
{
    (void)arg;
    return notify_peer_stored(peer, "vm.") == 0 && notify_peer_stored(peer, "image.") == 0 &&
           notify_peer_stored(peer, "connection.") == 0;
}

static bool all_are_kept(void *arg)
{
    (void)arg;
    return notify_peer_stored(peer, "vm.") == 4 * CLIENTS;
}

static void start_all(struct client clients[CLIENTS])
{
    for (unsigned i = 0; i < CLIENTS; i++)
        client_start(&clients[i], live, NULL);
    for (unsigned i = 0; i < CLIENTS; i++)
        cr_assert(client_says(&clients[i], 't'));
    cr_assert(wait_until(all_are_kept, NULL));
}

static void end_all(struct client clients[CLIENTS])
{
    for (unsigned i = 0; i < CLIENTS; i++)
        cr_expect(client_says(&clients[i], 'd'), "client %u", i);
    for (unsigned i = 0; i < CLIENTS; i++)
        client_tell(&clients[i], 'e');
    for (unsigned i = 0; i < CLIENTS; i++)
        cr_expect_eq(client_wait(&clients[i]), 0, "client %u", i);
    cr_expect(wait_until(nothing_is_kept, NULL), "the store has descriptors of what is gone");
    int status = notify_peer_stop(peer, SIGTERM, TEST_DEADLINE_MS);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
    struct notify_peer_seen seen = notify_peer_seen(peer);
    cr_expect_eq(seen.twice, 0, "descriptors that the store has under another name");
    cr_expect_eq(seen.too_many, 0);
    cr_expect_eq(seen.late, 0);
    cr_expect_gt(seen.watchdog, 0);
    notify_peer_free(peer);
}

Test(fd_store, a_restart_costs_no_byte)
{
    struct client clients[CLIENTS];
    serve();
    start_all(clients);
    for (unsigned i = 0; i < TIMES; i++) {
        if (i == 1) // the other restarts are with faults under way
            for (unsigned k = 0; k < CLIENTS; k++)
                client_tell(&clients[k], 'g');
        cr_assert(notify_peer_restart(peer, SIGUSR1, TEST_DEADLINE_MS));
    }
    end_all(clients);
}

Test(fd_store, nor_does_a_kill_of_the_keeper)
{
    struct client clients[CLIENTS];
    serve();
    start_all(clients);
    for (unsigned i = 0; i < TIMES; i++) {
        if (i == 1)
            for (unsigned k = 0; k < CLIENTS; k++)
                client_tell(&clients[k], 'g');
        cr_assert_eq(kill(notify_peer_pid(peer), SIGKILL), 0);
        cr_assert(notify_peer_restart_ended(peer, TEST_DEADLINE_MS));
    }
    end_all(clients);
}

static bool stands_by(void *arg)
{
    (void)arg;
    return world_status(world, "keeper", "standby_pid") > 0;
}

// The keeper is told to leave, and that an engine has ended, in the same moment: it has left by
// then, and must not do what it does at a death.
Test(fd_store, a_keeper_that_leaves_knows_no_death)
{
    struct client clients[CLIENTS];
    serve();
    start_all(clients);
    cr_assert(wait_until(stands_by, NULL));
    pid_t standby = (pid_t)world_status(world, "keeper", "standby_pid");
    struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, standby, 0), .events = POLLIN};
    cr_assert_geq(ended.fd, 0);
    pid_t keeper = notify_peer_pid(peer);
    cr_assert(process_stop(keeper));
    cr_assert_eq(kill(keeper, SIGUSR1), 0);
    cr_assert_eq(kill(standby, SIGKILL), 0);
    cr_assert_eq(poll(&ended, 1, TEST_DEADLINE_MS), 1);
    close(ended.fd);
    cr_assert_eq(kill(keeper, SIGCONT), 0);
    cr_assert(notify_peer_restart_ended(peer, TEST_DEADLINE_MS));
    cr_expect_eq(server_count_log(&world->server, "event=engine_died"), 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        client_tell(&clients[i], 'g');
    end_all(clients);
}

// One VM has touched all of it; the whole service comes back; the next one finds it.
static int map_template(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    vmm_map_template(&vmm, &world->memory, 2, arg, NULL);
    vmm.shared = shared;
    vmm_handshake_template(&vmm);
    vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
    tell_test(channel, 'd');
    await_test(channel, 'e');
    return 0;
}

static bool template_is_kept(void *arg)
{
    (void)arg;
    return notify_peer_stored(peer, "template.") == 2 && notify_peer_stored(peer, "vm.") == 4;
}

Test(fd_store, a_template_comes_back)
{
    static char socket[2 * TEST_PATH];
    struct client clients[2];
    char output[1024];
    serve();
    snprintf(socket, sizeof(socket), "%s", temp_path(&world->temp, "sockets/image.template"));
    const char *args[] = {"template", "--control", temp_path(&world->temp, "control.sock"), "image",
                          NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    client_start(&clients[0], map_template, socket);
    cr_assert(client_says(&clients[0], 'd'));
    cr_assert(wait_until(template_is_kept, NULL));
    long long faults = world_status(world, "faults", "read");
    cr_assert(notify_peer_restart(peer, SIGUSR1, TEST_DEADLINE_MS));
    client_start(&clients[1], map_template, socket);
    cr_assert(client_says(&clients[1], 'd'));
    cr_expect_eq(world_status(world, "faults", "read"), faults); // totals go on
    for (unsigned i = 0; i < 2; i++) {
        client_tell(&clients[i], 'e');
        cr_expect_eq(client_wait(&clients[i]), 0, "client %u", i);
    }
    int status = notify_peer_stop(peer, SIGTERM, TEST_DEADLINE_MS);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
    cr_expect_eq(notify_peer_seen(peer).twice, 0);
    notify_peer_free(peer);
}

// It says that it stops, and lets nobody down.
Test(fd_store, a_stop_completes_the_vms)
{
    struct client client;
    serve();
    client_start(&client, live, NULL);
    cr_assert(client_says(&client, 't'));
    int status = notify_peer_stop(peer, SIGTERM, TEST_DEADLINE_MS);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
    cr_expect_eq(notify_peer_seen(peer).stopping, 1);
    client_tell(&client, 'g');
    cr_expect(client_says(&client, 'd'));
    client_tell(&client, 'e');
    cr_expect_eq(client_wait(&client), 0);
    notify_peer_free(peer);
}
