// SPDX-License-Identifier: Apache-2.0
//
// Images as files while what serves them dies, is replaced or is stopped: every byte is right, and
// no thread waits for ever.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/support/files_world.h"
#include "tests/support/points.h"
#include "tests/support/stop.h"

TestSuite(files_death, .init = need_fuse, .fini = files_close, .timeout = 240);

enum { BYTES = 12 << 20, DEATHS = 12, THREADS = 3 };

static struct world *world;

// Round after round with an empty page cache, until it is told to end.
static int check_rounds(int channel, struct client_shared *shared, void *arg)
{
    (void)arg;
    for (uint64_t round = 0; round < 2 || shared->progress < UINT64_C(1) << 60; round++) {
        uint64_t bytes = 0;
        files_forget(files_path(world, "image"));
        uint8_t *map = files_map(files_path(world, "image"), &bytes);
        CHECK(map, "cannot map it: %s", strerror(errno));
        files_check(&world->memory, map, THREADS, round * THREADS);
        munmap(map, bytes);
        if (shared->progress < UINT64_C(1) << 60)
            shared->progress++;
    }
    (void)channel;
    return 0;
}

static void end_rounds(struct client *client)
{
    client->shared->progress = UINT64_C(1) << 61;
    cr_assert_eq(client_wait(client), 0, "%s", client_failure());
}

static void begin(const char *const *extra, struct client *client)
{
    world = files_make(DISTINCT, BYTES);
    files_serve(world, extra);
    if (client) {
        client_start(client, check_rounds, NULL);
        cr_assert(client_progressed(client, 1));
    }
}

Test(files_death, engines_that_are_killed)
{
    struct client client;
    begin(NULL, &client);
    world->server.deaths = DEATHS;
    for (unsigned i = 1; i <= DEATHS; i++) {
        kill(server_engine(&world->server), SIGKILL);
        cr_assert(server_wait_log(&world->server, "event=engine_serving", i + 1));
        cr_assert(client_progressed(&client, client.shared->progress + 1));
    }
    end_rounds(&client);
    cr_assert_eq(files_waiting(world), 0);
    world_stop(world);
}

static bool none_open(void *arg)
{
    return world_status(arg, "files", "open") == 0;
}

// At each step of a call: read and not acted on, about to be answered, answered.
static void die_at(const char *point)
{
    struct client client;
    need_points();
    world = files_make(DISTINCT, BYTES);
    point_begin(world, point);
    files_serve(world, NULL);
    point_end();
    world->server.deaths = 1;
    point_arm(world);
    client_start(&client, check_rounds, NULL);
    cr_assert(wait_until(point_struck, world));
    cr_assert(client_progressed(&client, 2));
    end_rounds(&client);
    cr_assert(wait_until(none_open, world)); // or each stop would wait for it
    world_stop(world);
}

Test(files_death, an_engine_dies_with_a_call_that_it_has_read)
{
    die_at("files_read:30");
}

Test(files_death, an_engine_dies_before_it_answers)
{
    die_at("files_answer:9");
}

Test(files_death, an_engine_dies_when_it_has_answered)
{
    die_at("files_answered:9");
}

Test(files_death, an_engine_dies_when_a_lookup_is_counted)
{
    die_at("files_lookup");
}

Test(files_death, an_engine_dies_when_an_open_is_counted)
{
    die_at("files_open:2");
}

Test(files_death, an_engine_dies_when_a_release_is_counted)
{
    die_at("files_release:2");
}

Test(files_death, an_engine_dies_when_the_image_is_kept)
{
    die_at("files_kept");
}

Test(files_death, an_upgrade)
{
    struct client client;
    begin((const char *const[]){"--upgrade-trial", "100ms", NULL}, &client);
    const char *args[] = {"upgrade", "--keeper", "--control",
                          temp_path(&world->temp, "control.sock"), NULL};
    cr_assert_eq(faultline_run(NULL, 0, args), 0);
    cr_assert(client_progressed(&client, client.shared->progress + 2));
    end_rounds(&client);
    world_stop(world);
    cr_assert_not(files_mounted(world)); // the number of the connection has come along
}

Test(files_death, the_keeper_dies_and_another_comes)
{
    struct client client;
    begin(NULL, &client);
    server_kill_keeper(&world->server);
    cr_assert(client_progressed(&client, client.shared->progress + 1));
    cr_assert(server_serve(&world->server, &world->temp, world->store, files_options(world, NULL)));
    world->server.deaths = 1;
    cr_assert(server_wait_log(&world->server, "event=engine_ready", 1));
    kill(server_engine(&world->server), SIGKILL);
    cr_assert(client_progressed(&client, client.shared->progress + 2));
    end_rounds(&client);
    world_stop(world);
}

// --- nothing is left that could answer ---

static bool one_waits(void *arg)
{
    return files_waiting(arg) > 0;
}

static int touch_until_sigbus(int channel, struct client_shared *shared, void *arg)
{
    uint64_t bytes = 0;
    (void)shared;
    (void)arg;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    uint8_t *map = files_map(files_path(world, "image"), &bytes);
    CHECK(map, "cannot map it");
    CHECK(memory_same(&world->memory, 0, map, PAGE), "the first page is wrong");
    vmm_catch_sigbus();
    tell_test(channel, 'm');
    await_test(channel, 'g');
    CHECK(vmm_poisoned(map + bytes / 2), "there is a page where there can be none");
    CHECK(memory_same(&world->memory, 0, map, PAGE), "what was there is gone");
    tell_test(channel, 's');
    return 0;
}

// A thread waits, as the engine is stopped, when both die.
Test(files_death, with_the_last_descriptor_waiters_get_sigbus)
{
    struct client client;
    begin(NULL, NULL);
    client_start(&client, touch_until_sigbus, NULL);
    cr_assert(client_says(&client, 'm'));
    server_pause(&world->server);
    client_tell(&client, 'g');
    cr_assert(wait_until(one_waits, world));
    cr_assert(process_stop(world->server.pid)); // it would have another engine serve
    kill(server_engine(&world->server), SIGKILL);
    server_kill_keeper(&world->server);
    cr_assert(client_says(&client, 's'));
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    // A new server clears what the dead one has left mounted.
    cr_assert(server_serve(&world->server, &world->temp, world->store, files_options(world, NULL)));
    cr_assert(server_wait_log(&world->server, "event=files_cleared", 1));
    client_start(&client, check_rounds, NULL);
    cr_assert(client_progressed(&client, 1));
    end_rounds(&client);
    world_stop(world);
}

static int touch_one(int channel, struct client_shared *shared, void *arg)
{
    uint64_t bytes = 0;
    (void)shared;
    (void)arg;
    uint8_t *map = files_map(files_path(world, "image"), &bytes);
    CHECK(map, "cannot map it");
    tell_test(channel, 'm');
    await_test(channel, 'g');
    CHECK(memory_same(&world->memory, bytes / 2, map + bytes / 2, PAGE), "the page is wrong");
    return 0;
}

static int touch_first_page(int channel, struct client_shared *shared, void *arg)
{
    uint64_t bytes = 0;
    (void)shared;
    (void)arg;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    uint8_t *map = files_map(files_path(world, "image"), &bytes);
    CHECK(map, "cannot map it");
    vmm_catch_sigbus();
    CHECK(vmm_poisoned(map), "there is a page where there can be none");
    tell_test(channel, 's');
    return 0;
}

// Each engine dies of the READ that it is sent again, until the keeper gives up.
Test(files_death, when_no_engine_lives_waiters_get_sigbus)
{
    struct client client;
    need_points();
    world = files_make(DISTINCT, BYTES);
    setenv("FAULTLINE_KILL_AT", "files_answer", 1);
    files_serve(world, NULL);
    unsetenv("FAULTLINE_KILL_AT");
    client_start(&client, touch_first_page, NULL);
    cr_assert(client_says(&client, 's'));
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    cr_assert(server_wait_log(&world->server, "event=failing_closed", 1));
    cr_assert(wait_until(process_ended, &world->server.pid));
    cr_assert_not(files_mounted(world));
}

// An engine that hangs is killed by its keeper, and a thread that waits has its page then.
Test(files_death, an_engine_that_hangs)
{
    struct client client;
    begin((const char *const[]){"--hang-timeout", "1s", NULL}, NULL);
    client_start(&client, touch_one, NULL);
    cr_assert(client_says(&client, 'm'));
    world->server.deaths = 1;
    server_pause(&world->server);
    client_tell(&client, 'g');
    cr_assert(wait_until(one_waits, world));
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    world_stop(world);
}
