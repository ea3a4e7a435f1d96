// SPDX-License-Identifier: Apache-2.0
//
// A VM for which the kernel blocks the thread that serves it (its memory limit, a lock of its own,
// its end) holds up nobody else, and is no reason to kill the engine: neither the worker that it
// shares, nor the successor of an engine that is killed meanwhile.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/failing_world.h"

enum { BYTES = 12 << 20, LONG_MS = 120000, HANG_S = 2, MANY = 12 };

TestSuite(lane, .init = need_userfaultfd, .fini = world_close, .timeout = 180);

static struct world *world;
static struct failing_calls *calls;

static void serve(const char *hang_ms)
{
    const char *options[] = {"--workers", "1", "--hang-timeout", hang_ms, "--cache", "64M", NULL};
    world = world_make(MIXED, BYTES);
    calls = world_failing_calls(world);
    world_serve_failing(world, options);
    cr_assert(server_wait_log(&world->server, "event=engine_ready", 1)); // the standby, too
}

// --- clients ---

static char *reserve(uint64_t bytes)
{
    char *at = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(at != MAP_FAILED, "no room");
    return at;
}

// One whose fills can be slow lies elsewhere than the others, which are all alike: what it maps
// from now on is below what no other maps.
static void lie_elsewhere(void)
{
    const char *wall = reserve(1ULL << 40);
    while (reserve(1 << 20) > wall) {
    }
}

// Its message is one that nobody reads, as the VM's owner is within the call for another page.
static void *touch_one(void *arg)
{
    struct vmm *vmm = arg;
    while (atomic_load(&calls->slow_thread) == 0 && atomic_load(&calls->slow_ms) > 0)
        usleep(1000);
    vmm_check(vmm, 1);
    return NULL;
}

// Touches two pages at once when it is told to, then all of them, and says so.
static int slow_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    pthread_t thread;
    (void)arg;
    lie_elsewhere();
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_1_12);
    vmm.shared = shared;
    atomic_store(&calls->slow_from, (uintptr_t)vmm.region[0].base);
    atomic_store(&calls->slow_to, (uintptr_t)vmm.region[0].base + vmm.region[0].bytes);
    vmm_handshake(&vmm, world->socket);
    tell_test(channel, 'a');
    await_test(channel, 't');
    CHECK(pthread_create(&thread, NULL, touch_one, &vmm) == 0, "a thread");
    vmm_check(&vmm, vmm.pages - 1);
    pthread_join(thread, NULL);
    vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
    tell_test(channel, 'd');
    await_test(channel, 'e');
    return 0;
}

// Removes, and touches a share of its pages at each 't'.
static int quick_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    tell_test(channel, 'a');
    for (uint32_t from = 0; from < vmm.pages; from += vmm.pages / 8) {
        await_test(channel, 't');
        for (uint32_t page = from; page < from + vmm.pages / 8 && page < vmm.pages; page++)
            vmm_check(&vmm, page);
        vmm_remove(&vmm, from, 2);
        vmm_check_zero(&vmm, from);
        tell_test(channel, 'd');
    }
    return 0;
}

// All pages at once, from many threads.
static int many_main(int channel, struct client_shared *shared, void *arg)
{
    (void)arg;
    world_touch_when_told(world, channel, shared, MANY);
    return 0;
}

struct pair {
    struct client slow;
    struct client quick;
};

static bool has_taken(void *arg)
{
    (void)arg;
    return world_status(world, "lanes", "taken") > 0;
}

// The slow one is in the middle of its first fill, and says nothing before that has ended.
static void begin_with(struct pair *pair, const char *hang_ms)
{
    serve(hang_ms);
    client_start(&pair->slow, slow_main, NULL);
    cr_assert(client_says(&pair->slow, 'a'));
    cr_assert(server_wait_log(&world->server, "event=attach vm=1", 1));
    client_start(&pair->quick, quick_main, NULL);
    cr_assert(client_says(&pair->quick, 'a'));
    cr_assert(server_wait_log(&world->server, "event=attach vm=2", 1));
    atomic_store(&calls->slow_ms, LONG_MS);
    client_tell(&pair->slow, 't');
    cr_assert(wait_until(has_taken, NULL));
}

static void begin(struct pair *pair)
{
    begin_with(pair, "10000");
}

static void touch(struct pair *pair)
{
    client_tell(&pair->quick, 't');
    cr_assert(client_says(&pair->quick, 'd'));
}

static bool still_waits(const struct pair *pair)
{
    return atomic_load(&calls->slow_thread) != 0 && atomic_load(&pair->slow.shared->progress) == 0;
}

static void finish(struct pair *pair, unsigned shares)
{
    atomic_store(&calls->slow_ms, 0);
    cr_assert(client_says(&pair->slow, 'd'));
    client_tell(&pair->slow, 'e');
    cr_expect_eq(client_wait(&pair->slow), 0);
    for (; shares > 0; shares--)
        touch(pair);
    cr_expect_eq(client_wait(&pair->quick), 0);
    world_stop(world);
}

// --- while it waits ---

static unsigned long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long long)now.tv_sec * 1000 + (unsigned long long)now.tv_nsec / 1000000;
}

// Longer than an engine that hangs lives: heartbeats, and messages that nobody reads.
Test(lane, others_are_served_and_the_engine_lives)
{
    struct pair pair;
    begin_with(&pair, "2000");
    pid_t engine = server_engine(&world->server);
    unsigned long long until = now_ms() + 3 * HANG_S * 1000;
    unsigned shares = 0;
    for (; shares < 4 || now_ms() < until; shares++) {
        if (shares < 4)
            touch(&pair);
        else
            poll(NULL, 0, 50);
    }
    cr_expect(still_waits(&pair));
    cr_expect_geq(world_vm_status(world, 1, "lane", "blocked_ms"), 1000);
    cr_expect_eq(world_status(world, "lanes", "blocked"), 1);
    // No thread that has read it can say so.
    cr_expect_geq(world_status(world, "faults", "oldest_wait_ms"), 1000);
    cr_expect_eq(server_engine(&world->server), engine);
    cr_expect_eq(server_count_log(&world->server, "event=engine_hangs"), 0);
    cr_expect_eq(server_logs(&world->server, "event=lane vm=1", 1), 1);
    finish(&pair, 4);
}

static bool many_failed(void *arg)
{
    return atomic_load(&calls->failed) >= *(uint64_t *)arg;
}

// The worker is held up while it tries again what had found no memory, of both VMs: what it had not
// come to is tried by the thread that goes on.
Test(lane, what_was_to_be_tried_again_is)
{
    struct pair pair;
    uint64_t failures = 500;
    serve("10000");
    client_start(&pair.slow, slow_main, NULL);
    cr_assert(client_says(&pair.slow, 'a'));
    cr_assert(server_wait_log(&world->server, "event=attach vm=1", 1));
    client_start(&pair.quick, many_main, NULL);
    cr_assert(client_says(&pair.quick, 'a'));
    cr_assert(server_wait_log(&world->server, "event=attach vm=2", 1));
    atomic_store(&calls->every, 1);
    atomic_store(&calls->what, FAILING_FILLS);
    client_tell(&pair.slow, 't');
    client_tell(&pair.quick, 't');
    cr_assert(client_waits(&pair.quick, MANY));
    cr_assert(wait_until(many_failed, &failures));
    atomic_store(&calls->slow_ms, LONG_MS);
    cr_assert(wait_until(has_taken, NULL));
    atomic_store(&calls->what, 0);
    cr_expect_eq(client_wait(&pair.quick), 0);
    cr_expect(still_waits(&pair));
    atomic_store(&calls->slow_ms, 0);
    cr_assert(client_says(&pair.slow, 'd'));
    client_tell(&pair.slow, 'e');
    cr_expect_eq(client_wait(&pair.slow), 0);
    world_stop(world);
}

static bool is_back(void *arg)
{
    (void)arg;
    return world_status(world, "lanes", "vms") == 0;
}

Test(lane, goes_back_to_a_worker_when_it_waits_no_more)
{
    struct pair pair;
    begin(&pair);
    atomic_store(&calls->slow_ms, 0);
    cr_assert(client_says(&pair.slow, 'd'));
    cr_expect(wait_until(is_back, NULL));
    client_tell(&pair.slow, 'e');
    cr_expect_eq(client_wait(&pair.slow), 0);
    client_kill(&pair.quick);
    world_stop(world);
}

// --- ends ---

static bool is_drained(void *arg)
{
    (void)arg;
    return server_count_log(&world->server, "event=release vm=2") > 0;
}

Test(lane, others_are_let_go)
{
    struct pair pair;
    begin(&pair);
    kill(world->server.pid, SIGTERM);
    cr_expect(wait_until(is_drained, NULL));
    cr_expect(still_waits(&pair));
    for (unsigned i = 0; i < 8; i++)
        touch(&pair);
    finish(&pair, 0);
}

static bool has_served(void *arg)
{
    return server_count_log(&world->server, "event=engine_serving") >= *(unsigned *)arg;
}

Test(lane, an_upgrade_hands_over_the_others_at_once)
{
    struct pair pair;
    unsigned served = 2;
    begin(&pair);
    const char *args[] = {"upgrade", "--control", temp_path(&world->temp, "control.sock"), NULL};
    cr_expect_eq(faultline_run(NULL, 0, args), 0);
    cr_expect(wait_until(has_served, &served));
    touch(&pair);
    finish(&pair, 7);
}

// Stops on its way out before it has given up its memory, as one does that the kernel holds up.
static void hold_at_exit(pid_t thread)
{
    cr_assert_eq(ptrace(PTRACE_SEIZE, thread, NULL, (void *)(long)PTRACE_O_TRACEEXIT), 0);
}

static void let_exit(pid_t thread)
{
    int status = 0;
    cr_assert_eq(waitpid(thread, &status, __WALL), thread);
    cr_assert(WIFSTOPPED(status) && status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8));
    cr_assert_eq(ptrace(PTRACE_CONT, thread, NULL, NULL), 0);
}

static bool one_has_the_state(const char *state)
{
    static char output[1 << 16];
    char wanted[64];
    const char *args[] = {"status", "--json", "--control", temp_path(&world->temp, "control.sock"),
                          NULL};
    snprintf(wanted, sizeof(wanted), "\"state\": \"%s\"", state);
    return faultline_run(output, sizeof(output), args) == 0 && strstr(output, wanted);
}

Test(lane, a_successor_serves_the_others_at_once)
{
    struct pair pair;
    unsigned served = 2;
    begin(&pair);
    pid_t thread = atomic_load(&calls->slow_thread);
    hold_at_exit(thread);
    world->server.deaths++;
    kill(server_engine(&world->server), SIGKILL);
    cr_expect(wait_until(has_served, &served));
    touch(&pair);
    touch(&pair);
    cr_expect_eq(server_logs(&world->server, "event=held vm=1", 1), 1);
    cr_expect(one_has_the_state("adopting"));
    cr_expect(one_has_the_state("serving"));
    cr_expect_not(one_has_the_state("refused"));
    cr_expect_eq(atomic_load(&pair.slow.shared->progress), 0);
    atomic_store(&calls->slow_ms, 0);
    let_exit(thread);
    finish(&pair, 6);
}

Test(lane, a_vm_that_is_killed_while_it_waits_is_gone_for_good)
{
    struct pair pair;
    begin(&pair);
    client_kill(&pair.slow);
    touch(&pair);
    atomic_store(&calls->slow_ms, 0);
    cr_expect(server_wait_log(&world->server, "event=detach vm=1", 1));
    for (unsigned i = 0; i < 7; i++)
        touch(&pair);
    cr_expect_eq(client_wait(&pair.quick), 0);
    world_stop(world);
}
