// SPDX-License-Identifier: Apache-2.0
//
// `serve --replace`: a server in another place (the next pod of a host) takes everything over from
// one that runs, and whichever of the two dies on the way, no VM loses a byte.
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/points.h"
#include "tests/support/stop.h"
#include "tests/support/world.h"

enum { BYTES = 32 << 20 };

TestSuite(replace, .init = need_userfaultfd, .fini = world_close, .timeout = 180);

static struct world *world;
static struct server next;

static int touch_on(int channel, struct client_shared *shared, void *arg)
{
    (void)arg;
    return world_touch_on(world, channel, shared);
}

static void begin(struct client *client)
{
    static const char *const extra[] = {"--upgrade-trial", "100", NULL};
    world = world_make(MIXED, BYTES);
    world_serve(world, extra);
    client_start(client, touch_on, NULL);
    cr_assert(client_says(client, 't'));
}

static const char *ready_file(void)
{
    return temp_path(&world->temp, "ready");
}

static bool says_ready(void *arg)
{
    (void)arg;
    return access(ready_file(), F_OK) == 0;
}

// A server of the same store and sockets; no wait.
static void spawn_next(const char *name)
{
    char sockets[TEST_PATH];
    char control[TEST_PATH];
    snprintf(sockets, sizeof(sockets), "%s", temp_path(&world->temp, "sockets"));
    snprintf(control, sizeof(control), "%s", temp_path(&world->temp, "control.sock"));
    const char *const args[] = {"serve", "--store",   world->store,   "--sockets",
                                sockets, "--control", control,        "--upgrade-trial",
                                "100",   "--replace", "--ready-file", ready_file(),
                                NULL};
    server_spawn(&next, &world->temp, name, args);
}

static void start_next(const char *name)
{
    spawn_next(name);
    cr_assert(server_wait_log(&next, "event=ready pid=", 1));
    cr_assert(server_wait_log(&next, "event=upgrade state=done", 1));
}

// The old one has nothing left to do but to end.
static void end_old(void)
{
    cr_assert(server_wait_log(&world->server, "event=replaced ", 1));
    cr_expect_eq(server_stop(&world->server), 0);
    world->server = next;
}

static void finish(struct client *client)
{
    client_tell(client, 'g');
    cr_assert_eq(client_wait(client), 0);
    world_stop(world);
}

Test(replace, costs_no_byte)
{
    struct client client;
    struct client second;
    begin(&client);
    start_next("next");
    cr_expect_eq(access(ready_file(), F_OK), 0);
    cr_expect_eq(world_status(world, "keeper", "pid"), next.pid);
    cr_expect_eq(world_status(world, "", "vms"), 1);
    end_old();
    client_start(&second, touch_on, NULL); // by the same socket
    cr_assert(client_says(&second, 't'));
    client_tell(&second, 'g');
    cr_expect_eq(client_wait(&second), 0);
    finish(&client);
    cr_expect_neq(access(ready_file(), F_OK), 0, "a server that has ended is not ready");
}

// Again and again, as releases come; the one before is killed, as a pod is whose time is up.
Test(replace, again_and_again)
{
    enum { TIMES = 3 };
    struct client client;
    begin(&client);
    for (unsigned i = 0; i < TIMES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "next%u", i);
        start_next(name);
        cr_assert(server_wait_log(&world->server, "event=replaced ", 1));
        server_kill_keeper(&world->server);
        world->server = next;
    }
    finish(&client);
}

// With everything that ran in its place, before an engine of the new one's own serves.
Test(replace, when_the_old_engine_dies_at_once)
{
    struct client client;
    begin(&client);
    pid_t engine = server_engine(&world->server);
    spawn_next("next");
    cr_assert(server_wait_log(&world->server, "event=replaced ", 1));
    server_kill_keeper(&world->server);
    kill(engine, SIGKILL);
    cr_assert(server_wait_log(&next, "event=ready pid=", 1));
    world->server = next;
    world->server.deaths = 1;
    finish(&client);
}

// The file says that the process serves, not that an engine has just begun to; and it is the file
// of the server that has made it.
Test(replace, is_ready_as_long_as_it_serves)
{
    char control[TEST_PATH];
    char output[1024];
    world = world_make(MIXED, BYTES);
    world_pack(world, world->file, "image");
    spawn_next("next");
    cr_assert(wait_until(says_ready, NULL));
    snprintf(control, sizeof(control), "%s", temp_path(&world->temp, "control.sock"));
    const char *const upgrade[] = {"upgrade", "--keeper", "--control", control, NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), upgrade), 0, "%s", output);
    cr_assert(server_wait_log(&next, "event=keeper_exec", 1));
    cr_expect(wait_until(says_ready, NULL), "it serves as before");
    const char *const second[] = {"serve",
                                  "--store",
                                  world->store,
                                  "--control",
                                  control,
                                  "--sockets",
                                  temp_path(&world->temp, "sockets"),
                                  "--ready-file",
                                  ready_file(),
                                  NULL};
    cr_expect_eq(faultline_run(output, sizeof(output), second), 1, "%s", output);
    cr_expect(says_ready(NULL), "a server that could not start has taken the file away");
    cr_expect_eq(server_stop(&next), 0);
    cr_expect_not(says_ready(NULL));
}

Test(replace, needs_no_server_that_runs)
{
    world = world_make(MIXED, BYTES);
    world_pack(world, world->file, "image");
    spawn_next("next");
    cr_expect(wait_until(says_ready, NULL)); // which the keeper hears a moment after the engine is
    cr_expect_eq(server_stop(&next), 0);
    cr_expect_eq(access(ready_file(), F_OK), -1);
}

// --- deaths on the way ---

// The new one dies there: the old one goes on as if nothing had been.
static void new_one_dies_at(const char *point)
{
    struct client client;
    need_points();
    begin(&client);
    pid_t engine = server_engine(&world->server);
    point_begin(world, point);
    point_arm(world);
    spawn_next("next");
    point_end();
    cr_expect(wait_until(point_struck, world), "the new keeper did not come to %s", point);
    cr_assert(wait_until(process_ended, &next.pid));
    server_kill_keeper(&next); // reaps it
    cr_assert(server_wait_log(&world->server, "event=hand_on_failed", 1));
    cr_expect_eq(server_engine(&world->server), engine);
    cr_expect_eq(world_status(world, "keeper", "pid"), world->server.pid);
    start_next("another");
    end_old();
    finish(&client);
}

Test(replace, when_the_new_one_dies_before_it_has_all)
{
    new_one_dies_at("replace_record");
}

Test(replace, when_the_new_one_dies_before_it_has_said_so)
{
    new_one_dies_at("replace_answer");
}

// The old one dies there, and its engine goes on alone: the next server takes that over.
static void old_one_dies_at(const char *point)
{
    struct client client;
    static const char *const extra[] = {"--upgrade-trial", "100", NULL};
    need_points();
    world = world_make(MIXED, BYTES);
    point_begin(world, point);
    world_serve(world, extra);
    point_end();
    client_start(&client, touch_on, NULL);
    cr_assert(client_says(&client, 't'));
    point_arm(world);
    spawn_next("next");
    cr_expect(wait_until(point_struck, world), "the old keeper did not come to %s", point);
    cr_assert(wait_until(process_ended, &world->server.pid));
    server_kill_keeper(&world->server);              // reaps it
    cr_assert(wait_until(process_ended, &next.pid)); // it could not have all, and says so
    cr_expect_gt(server_count_log(&next, "cannot be taken over"), 0);
    server_kill_keeper(&next);
    start_next("another");
    world->server = next;
    finish(&client);
}

Test(replace, when_the_old_one_dies_before_it_has_sent_all)
{
    old_one_dies_at("hand_on_records");
}

Test(replace, when_the_old_one_dies_before_it_has_said_so)
{
    old_one_dies_at("hand_on_answered");
}

// It has sent its VM to the next server, and nothing else has it: no second try may let go of it.
Test(replace, when_an_engine_that_was_alone_dies_as_it_hands_over)
{
    struct client client;
    static const char *const extra[] = {"--upgrade-trial", "100", NULL};
    need_points();
    world = world_make(MIXED, BYTES);
    point_begin(world, "vms_put");
    world_serve(world, extra);
    point_end();
    client_start(&client, touch_on, NULL);
    cr_assert(client_says(&client, 't'));
    server_kill_keeper(&world->server);
    cr_assert(server_wait_log(&world->server, "event=keeper_lost", 1));
    point_arm(world);
    spawn_next("next");
    cr_expect(wait_until(point_struck, world));
    cr_assert(server_wait_log(&next, "event=ready pid=", 1));
    cr_expect_eq(world_status(world, "", "vms"), 1);
    world->server = next;
    finish(&client);
}

// --- one that cannot, or is not to ---

static bool blocks_sigterm(void *pid)
{
    char path[64];
    char line[256];
    unsigned long long mask = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)*(pid_t *)pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file) && sscanf(line, "SigBlk: %llx", &mask) != 1)
        ;
    if (file)
        fclose(file);
    return mask >> (SIGTERM - 1) & 1;
}

// To be told so later would be to stop what it has just taken over.
Test(replace, one_that_is_told_to_end_takes_nothing)
{
    struct client client;
    begin(&client);
    cr_assert(process_stop(world->server.pid));
    spawn_next("next");
    cr_assert(wait_until(blocks_sigterm, &next.pid));
    kill(next.pid, SIGTERM);
    kill(world->server.pid, SIGCONT);
    cr_assert(wait_until(process_ended, &next.pid));
    server_kill_keeper(&next); // reaps it
    cr_expect_eq(server_count_log(&next, "event=stopping"), 0);
    cr_expect_eq(server_count_log(&world->server, "event=replaced "), 0);
    cr_expect_eq(world_status(world, "keeper", "pid"), world->server.pid);
    finish(&client);
}
