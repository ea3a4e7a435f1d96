// SPDX-License-Identifier: Apache-2.0
//
// Images as files in the page cache: what is brought there ahead, who is charged for it, and VMs
// whose cgroup has no room for all of the image.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/cgroup.h"
#include "tests/support/files_world.h"
#include "tests/support/points.h"
#include "tests/support/traces.h"

static void give_back(void)
{
    files_close();
    cgroup_remove();
}

TestSuite(files_warm, .init = need_fuse, .fini = give_back, .timeout = 240);

enum { BYTES = 16 << 20, PAGES = BYTES / PAGE, RUN = 24, RUNS = 40, TRACED = RUN * RUNS };

static struct world *world;
static uint32_t traced[TRACED];
static const char *const no_replay[] = {"--replay", "off", NULL};

static const char *file_path(void)
{
    return files_path(world, "image");
}

// Runs from all over the memory, in no order.
static void record(void)
{
    uint32_t *order = random_order(PAGES / (2 * RUN), 3);
    for (uint32_t i = 0; i < TRACED; i++)
        traced[i] = order[i / RUN] * 2 * RUN + i % RUN;
    free(order);
    record_one(world, (struct touches){NULL, PAGE, 1, traced, TRACED});
}

static void begin(const char *const *extra)
{
    world = files_make(DISTINCT, BYTES);
    files_serve(world, extra);
    record();
}

static unsigned count_resident(const uint8_t *map, unsigned char there[PAGES])
{
    unsigned count = 0;
    CHECK(mincore((void *)(uintptr_t)map, BYTES, there) == 0, "the kernel does not say");
    for (unsigned i = 0; i < PAGES; i++)
        count += there[i] & 1;
    return count;
}

static void check_warm(const uint8_t *map)
{
    static unsigned char there[PAGES];
    unsigned count = count_resident(map, there);
    for (unsigned i = 0; i < TRACED; i++)
        CHECK(there[traced[i]] & 1, "page %u is not there", traced[i]);
    CHECK(count < 2 * TRACED, "%u pages are there", count);
}

// Maps the file and touches nothing until it is told to.
static int map_and_look(int channel, struct client_shared *shared, void *arg)
{
    uint64_t bytes = 0;
    (void)shared;
    (void)arg;
    uint8_t *map = files_map(file_path(), &bytes);
    CHECK(map, "cannot map it");
    tell_test(channel, 'm');
    await_test(channel, 'g');
    check_warm(map);
    files_check(&world->memory, map, 2, 1);
    return 0;
}

static void end(struct client *client)
{
    client_tell(client, 'g');
    cr_assert_eq(client_wait(client), 0, "%s", client_failure());
}

Test(files_warm, what_the_trace_has_is_there_soon_after_the_first_open)
{
    struct client client;
    begin(NULL);
    client_start(&client, map_and_look, NULL);
    cr_assert(client_says(&client, 'm'));
    cr_assert(server_wait_log(&world->server, "event=files_warmed image=image", 1));
    cr_assert_eq(server_count_log(&world->server, "there=0 "), 1);
    end(&client);
    client_start(&client, map_and_look, NULL); // once is enough
    cr_assert(client_says(&client, 'm'));
    client_kill(&client);
    world_stop(world);
    cr_assert_eq(server_count_log(&world->server, "event=files_warmed"), 1);
}

static void warm(const char *const *extra, const char *expected)
{
    char output[1024];
    const char *args[16] = {"warm", "--store", world->store, "--json"};
    unsigned count = 4;
    for (unsigned i = 0; extra && extra[i]; i++)
        args[count++] = extra[i];
    args[count] = file_path();
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    cr_assert_not_null(strstr(output, expected), "%s", output);
}

Test(files_warm, without_replay_nothing_is_until_it_is_asked_for)
{
    static const char *const part[] = {"--max", "1M", NULL};
    struct client client;
    begin(no_replay);
    client_start(&client, map_and_look, NULL);
    cr_assert(client_says(&client, 'm'));
    warm(part, "\"there\":0,\"warm\":256,");
    warm(NULL, "\"there\":256,\"warm\":960,");
    warm(NULL, "\"there\":960,\"warm\":960,");
    end(&client);
    world_stop(world);
    cr_assert_eq(server_count_log(&world->server, "event=files_warmed"), 0);
}

// --- memory ---

static int touch_in_cgroup(int channel, struct client_shared *shared, void *arg)
{
    uint64_t bytes = 0;
    uint64_t sum = 0;
    (void)shared;
    (void)arg;
    CHECK(cgroup_enter(), "it cannot enter its cgroup");
    uint8_t *map = files_map(file_path(), &bytes);
    CHECK(map, "cannot map it");
    for (uint64_t at = 0; at < bytes; at += PAGE)
        sum += ((volatile uint8_t *)map)[at];
    shared->progress = 1 + sum % 2;
    tell_test(channel, 't');
    await_test(channel, 'e');
    return 0;
}

// What the cgroup of a VM is charged for that touches all.
static uint64_t charge(void)
{
    struct client client;
    client_start(&client, touch_in_cgroup, NULL);
    cr_assert(client_says(&client, 't'));
    uint64_t used = cgroup_used();
    client_tell(&client, 'e');
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    return used;
}

Test(files_warm, who_warms_is_charged_and_not_who_comes_first)
{
    static const char *const all[] = {"--all", NULL};
    begin(no_replay);
    cgroup_make(4L * BYTES);
    warm(all, "\"there\":0,\"warm\":4096,");
    cr_assert_lt(charge(), BYTES / 4);
    files_forget(file_path());
    cr_assert_gt(charge(), BYTES / 2); // else it could not be told apart
    world_stop(world);
}

enum { CLONES = 2, WRITTEN = 40 };

static int read_all_and_write(int channel, struct client_shared *shared, void *arg)
{
    static uint8_t mine[PAGE];
    uint64_t bytes = 0;
    (void)channel;
    (void)shared;
    CHECK(cgroup_enter(), "it cannot enter its cgroup");
    uint8_t *map = files_map(file_path(), &bytes);
    CHECK(map, "cannot map it");
    memset(mine, 0xe5, sizeof(mine));
    for (unsigned i = 0; i < WRITTEN; i++)
        map[(uint64_t)traced[i] * PAGE] = 0xe5;
    for (unsigned i = 0; i < WRITTEN; i++) {
        uint64_t at = (uint64_t)traced[i] * PAGE;
        CHECK(map[at] == 0xe5 && memory_same(&world->memory, at + 1, map + at + 1, PAGE - 1),
              "a page that was written to is wrong");
        madvise(map + at, PAGE, MADV_DONTNEED); // as it is in the file again
    }
    files_check(&world->memory, map, 2, (uint64_t)(uintptr_t)arg);
    return 0;
}

// Pages go as others come, and come again.
Test(files_warm, clones_read_all_in_a_cgroup_with_room_for_half)
{
    struct client client[CLONES];
    begin(NULL);
    cgroup_make(BYTES / 2);
    for (uintptr_t i = 0; i < CLONES; i++)
        client_start(&client[i], read_all_and_write, (void *)(5 + 10 * i));
    for (unsigned i = 0; i < CLONES; i++)
        cr_assert_eq(client_wait(&client[i]), 0, "%s", client_failure());
    cr_assert_leq(cgroup_peak(), BYTES / 2);
    cr_assert_gt(cgroup_peak(), BYTES / 4);
    world_stop(world);
}

// --- trouble ---

static pid_t start_warming(void)
{
    const char *path = file_path();
    pid_t pid = fork();
    if (pid == 0) {
        child_setup();
        execl(getenv("FAULTLINE_BIN"), "faultline", "warm", "--all", path, NULL);
        _exit(127);
    }
    return pid;
}

static bool some_wait(void *arg)
{
    return files_waiting(arg) > 0;
}

static bool was_killed(void *arg)
{
    int status = 0;
    return waitpid(*(pid_t *)arg, &status, WNOHANG) > 0 && WIFSIGNALED(status);
}

Test(files_warm, a_process_that_waits_for_a_hanging_engine_can_be_killed)
{
    struct client client;
    begin(no_replay);
    client_start(&client, map_and_look, NULL); // so that the open needs nobody
    cr_assert(client_says(&client, 'm'));
    int fd = open(file_path(), O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0);
    server_pause(&world->server);
    pid_t pid = start_warming();
    cr_assert(wait_until(some_wait, world));
    kill(pid, SIGKILL);
    cr_assert(wait_until(was_killed, &pid));
    server_resume(&world->server);
    client_kill(&client);
    close(fd);
    world_stop(world);
}

static bool all_traced_there(void *arg)
{
    static unsigned char there[PAGES];
    count_resident(arg, there);
    for (unsigned i = 0; i < TRACED; i++) {
        if (!(there[traced[i]] & 1))
            return false;
    }
    return true;
}

// No READ but those of the process that warms: the engine dies in the middle of it.
Test(files_warm, an_engine_dies_and_the_next_one_goes_on)
{
    uint64_t bytes = 0;
    need_points();
    world = files_make(DISTINCT, BYTES);
    point_begin(world, "files_answered:9");
    files_serve(world, NULL);
    point_end();
    record();
    world->server.deaths = 1;
    point_arm(world);
    uint8_t *map = files_map(file_path(), &bytes);
    cr_assert_not_null(map, "%s", strerror(errno));
    cr_assert(wait_until(point_struck, world));
    cr_assert(wait_until(all_traced_there, map));
    munmap(map, bytes);
    world_stop(world);
    cr_assert_eq(server_count_log(&world->server, "event=files_warmed"), 0);
}

Test(files_warm, what_cannot_be_warmed_is_said)
{
    char output[1024];
    begin(no_replay);
    const char *other[] = {"warm", "--store", world->store, world->file, NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), other), 1);
    cr_assert_not_null(strstr(output, "the store has no such image"), "%s", output);
    const char *none[] = {"trace", "rm", "--store", world->store, "image", NULL};
    cr_assert_eq(faultline_run(NULL, 0, none), 0);
    const char *warm_it[] = {"warm", "--store", world->store, file_path(), NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), warm_it), 1);
    cr_assert_not_null(strstr(output, "image 'image' has no trace"), "%s", output);
    world_stop(world);
}
