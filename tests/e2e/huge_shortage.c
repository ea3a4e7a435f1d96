// SPDX-License-Identifier: Apache-2.0
//
// There are fewer pages of 2 MiB than VMs need. The kernel may then say of a page that it is there
// though it is not (EEXIST): nobody spins, nobody reads zeros, it is said what is lacking, and when
// there are pages again all goes on. Else it ends as the policy says.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/base/bitmap.h"
#include "engine/vm/vm_state.h"
#include "tests/support/failing_world.h"
#include "tests/support/huge_hold.h"

enum { PAGES = 8, BYTES = PAGES * HUGE, ATTEMPTS = 16, FEW = 3 };

static struct world *world;
static struct client client;
static struct failing_calls *calls;

static void begin(void)
{
    need_userfaultfd();
    need_huge_pages(PAGES + FEW);
}

static void end(void)
{
    client_kill(&client);
    huge_pages_give_back();
    world_close();
}

TestSuite(huge_shortage, .init = begin, .fini = end, .timeout = 120);

static void serve(const char *const *extra)
{
    world = world_make(DISTINCT, BYTES);
    world_serve(world, extra);
}

// With calls that the test can make fail, all of those that it names.
static void serve_failing(unsigned what, const char *const *extra)
{
    world = world_make(DISTINCT, BYTES);
    calls = world_failing_calls(world);
    atomic_store(&calls->every, 1);
    atomic_store(&calls->what, what);
    world_serve_failing(world, extra);
}

// --- the VM ---

struct kind {
    uint32_t page_bytes;
    bool shared; // a memfd, of which pages can be dropped without an event
};

// Does as it is told: touches a page (a digit), removes it ('a' for page 0 ...), checks all.
static int obedient_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    const struct kind *kind = arg;
    char order = 0;
    if (kind->shared)
        vmm_map_shared(&vmm, &world->memory, kind->page_bytes, 2);
    else
        vmm_map(&vmm, &world->memory, kind->page_bytes, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_catch_sigbus();
    vmm_handshake(&vmm, world->socket);
    while (read(channel, &order, 1) == 1 && order != 'q') {
        if (order >= '0' && order <= '9')
            vmm_check(&vmm, (uint32_t)(order - '0'));
        if (order >= 'a' && order < 'a' + PAGES) {
            vmm_remove(&vmm, (uint32_t)(order - 'a'), 1);
            vmm.removed[order - 'a'] = true;
        }
        if (order == 'A')
            vmm_touch_all(&vmm, 1, VMM_UP, true);
        if (order == 'P')
            CHECK(vmm_poisoned(vmm_page(&vmm, PAGES - 1)), "it is not poisoned");
        tell_test(channel, 'd');
    }
    return 0;
}

static const struct kind huge = {HUGE, false};
static const struct kind small = {PAGE, false};
static const struct kind shared = {PAGE, true};

static void start(struct client *which, const struct kind *kind)
{
    client_start(which, obedient_main, (void *)(uintptr_t)kind); // NOLINT
    cr_assert(client_obeys(which, "0"));
}

static bool lacks(void *arg)
{
    return world_status(world, "shortage", "huge_pages") >= *(const int *)arg;
}

static int drain(const char *timeout)
{
    const char *args[] = {
        "drain",     "--populate", "--control", temp_path(&world->temp, "control.sock"),
        "--timeout", timeout,      NULL};
    return faultline_run(NULL, 0, args);
}

// --- waiting ---

Test(huge_shortage, is_waited_out_without_a_spin)
{
    struct client other;
    serve(NULL);
    huge_pages_leave(FEW);
    start(&client, &huge);
    client_tell(&client, 'A');
    int attempts = ATTEMPTS;
    cr_assert(wait_until(lacks, &attempts));
    cr_expect_eq(world_status(world, "shortage", "vms"), 1);
    cr_expect_eq(world_vm_status(world, 1, "", "faults"), FEW + 1, "a message for each page");
    cr_expect_gt(world_vm_status(world, 1, "", "lacking_ms"), 0);
    cr_expect_eq(world_vm_status(world, 1, "", "installed"), FEW * HUGE / PAGE);
    cr_expect_eq(world_status(world, "huge_pages", "free"), 0);
    start(&other, &small); // others have what they want meanwhile
    cr_assert(client_obeys(&other, "A"));
    client_tell(&other, 'q');
    cr_assert_eq(client_wait(&other), 0);
    huge_pages_give_back();
    cr_assert(client_says(&client, 'd'));
    cr_expect_eq(world_vm_status(world, 1, "", "faults"), PAGES);
    cr_expect_eq(world_status(world, "shortage", "vms"), 0);
    cr_expect_eq(server_logs(&world->server, "event=shortage vm=1", 1), 1);
    cr_expect_eq(server_logs(&world->server, "reason=\"no free 2 MiB page: ", 1), 1);
    cr_expect_eq(server_logs(&world->server, "event=shortage_ended vm=1", 1), 1);
    client_tell(&client, 'q');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

// From 20 us on, each pause is twice the one before, up to 100 ms: 14 attempts in the first 164 ms.
Test(huge_shortage, is_looked_at_less_and_less_often)
{
    enum { FIRST = 15, MORE = 4, LEAST_PAUSE_MS = 90 };
    serve(NULL);
    huge_pages_leave(FEW);
    start(&client, &huge);
    client_tell(&client, 'A');
    int attempts = FIRST;
    cr_assert(wait_until(lacks, &attempts));
    // The time first: what the questions themselves take counts as time between the attempts.
    long long lacking_ms = world_vm_status(world, 1, "", "lacking_ms");
    long long before = world_status(world, "shortage", "huge_pages");
    attempts = (int)before + MORE;
    cr_assert(wait_until(lacks, &attempts));
    long long more = world_status(world, "shortage", "huge_pages") - before;
    long long ms = world_vm_status(world, 1, "", "lacking_ms") - lacking_ms;
    // One more may fall between two questions.
    cr_expect_geq(ms, (more - 2) * LEAST_PAUSE_MS, "%lld attempts in %lld ms", more, ms);
    huge_pages_give_back();
    cr_assert(client_says(&client, 'd'));
    client_tell(&client, 'q');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

// --- letting go ---

static void drain_without_pages(void)
{
    huge_pages_leave(FEW);
    start(&client, &huge);
    cr_assert_eq(drain("1"), 1);
    cr_assert_eq(world_status(world, "", "vms"), 1, "it was let go");
    cr_assert(client_obeys(&client, "b")); // page 1 goes, whether it was there or not
    huge_pages_give_back();
    cr_assert_eq(drain("60"), 0);
    cr_assert(client_obeys(&client, "A"));
    client_tell(&client, 'q');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

Test(huge_shortage, a_drain_lets_no_vm_go_that_misses_pages)
{
    serve(NULL);
    drain_without_pages();
}

Test(huge_shortage, nor_where_the_pagemap_must_be_read)
{
    serve_failing(FAILING_SCANS, NULL);
    drain_without_pages();
    cr_expect_gt(atomic_load(&calls->failed), 0);
}

Test(huge_shortage, nor_where_nothing_can_be_seen_of_the_vm)
{
    serve_failing(FAILING_PAGEMAPS, NULL);
    drain_without_pages();
    cr_expect_gt(atomic_load(&calls->failed), 0);
    cr_expect_eq(server_logs(&world->server, "event=presence_unknown vm=1", 1), 1);
}

// --- a state that says too much ---

// The engine's memfd with the state of the only VM.
static struct fl_vm_state *state_of_vm(void)
{
    pid_t engine = server_engine(&world->server);
    for (int fd = 0; fd < 1024; fd++) {
        char path[64];
        char target[64] = "";
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)engine, fd);
        if (readlink(path, target, sizeof(target) - 1) < 0 || !strstr(target, "faultline-vm-"))
            continue;
        struct fl_vm_state head;
        int file = open(path, O_RDWR | O_CLOEXEC);
        cr_assert(file >= 0 && pread(file, &head, sizeof(head), 0) == (ssize_t)sizeof(head));
        void *state = mmap(NULL, head.total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        cr_assert_neq(state, MAP_FAILED);
        close(file);
        return state;
    }
    cr_assert_fail("the engine has no state of a VM");
    return NULL;
}

// All pages are said to be there: most are not.
static void release_with_wrong_bits(const struct kind *kind, int status, const char *then)
{
    start(&client, kind);
    cr_assert(client_obeys(&client, "c"));
    struct fl_vm_state *state = state_of_vm();
    fl_bits_set(fl_vm_installed(state), 0, state->layout.pages);
    cr_assert_eq(drain("60"), status);
    cr_assert(client_obeys(&client, then));
    client_tell(&client, 'q');
    cr_assert_eq(client_wait(&client), 0);
}

Test(huge_shortage, what_is_said_to_be_there_is_looked_at_before_a_release)
{
    serve(NULL);
    release_with_wrong_bits(&huge, 0, "A");
    cr_expect_gt(world_status(world, "shortage", "found_missing"), 0);
    world_stop(world);
}

Test(huge_shortage, and_so_are_pages_of_4_kib)
{
    serve(NULL);
    release_with_wrong_bits(&small, 0, "A");
    cr_expect_gt(world_status(world, "shortage", "found_missing"), 0);
    world_stop(world);
}

Test(huge_shortage, and_by_probes_where_nothing_can_be_seen)
{
    serve_failing(FAILING_PAGEMAPS, NULL);
    release_with_wrong_bits(&huge, 0, "A");
    cr_expect_gt(world_status(world, "shortage", "found_missing"), 0);
    world_stop(world);
}

// Whether it is the image's or was dropped nobody can tell: no byte of it is given.
Test(huge_shortage, and_fails_closed_where_it_may_have_been_dropped)
{
    serve_failing(FAILING_PAGEMAPS, NULL);
    release_with_wrong_bits(&shared, 3, "P");
    cr_assert_eq(server_stop(&world->server), 3);
}

// --- the end ---

Test(huge_shortage, ends_in_poison_with_its_name)
{
    static const char *const options[] = {"--read-timeout", "1000", "--on-error", "poison", NULL};
    serve(options);
    huge_pages_leave(1);
    start(&client, &huge);
    cr_assert(client_obeys(&client, "P"));
    cr_assert(server_wait_log(&world->server, "event=poison vm=1", 1));
    cr_expect_eq(
        server_count_log(&world->server,
                         "reason=\"there was no memory for the page in time: no free 2 MiB"),
        1);
    cr_expect_eq(server_count_log(&world->server, "timed out"), 0);
    cr_expect_eq(world_vm_status(world, 1, "", "poisoned"), HUGE / PAGE);
    huge_pages_give_back();
    cr_assert(client_obeys(&client, "123")); // the others can still be had
    client_tell(&client, 'q');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

Test(huge_shortage, ends_the_vm_where_that_is_the_policy)
{
    static const char *const options[] = {"--read-timeout", "1000", "--on-error", "kill", NULL};
    serve(options);
    huge_pages_leave(1);
    start(&client, &huge);
    client_tell(&client, 'A');
    cr_assert_eq(client_wait(&client), 128 + 9);
    cr_assert(server_wait_log(&world->server, "event=detach vm=1", 1));
    cr_expect_eq(server_logs(&world->server, "event=kill vm=1", 1), 1);
    cr_expect_eq(server_logs(&world->server, "no free 2 MiB page: ", 2), 2);
    world_stop(world);
}

// --- what is said at the end ---

static void take_half_away(const char *const *options)
{
    serve(options);
    huge_pages_leave(FEW);
    start(&client, &huge);
}

Test(huge_shortage, a_drain_says_that_pages_are_poisoned)
{
    static const char *const options[] = {"--read-timeout", "500", "--on-error", "poison", NULL};
    take_half_away(options);
    cr_assert_eq(drain("60"), 3);
    cr_expect_eq(world_status(world, "ended", "poisoned"), 1);
    cr_expect_eq(world_status(world, "ended", "poisoned_pages"), (PAGES - FEW) * HUGE / PAGE);
    huge_pages_give_back();
    cr_assert(client_obeys(&client, "0P"));
    client_tell(&client, 'q');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(server_stop(&world->server), 3);
    cr_expect_eq(server_logs(&world->server, "let go with 2560 pages poisoned", 1), 1);
}

Test(huge_shortage, a_stop_says_that_vms_were_killed)
{
    static const char *const options[] = {"--stop-timeout", "1500", NULL};
    take_half_away(options);
    cr_assert_eq(server_stop(&world->server), 3);
    cr_expect_eq(client_wait(&client), 128 + 9);
    cr_expect_eq(server_logs(&world->server, "0 pages poisoned, 1 killed", 1), 1);
}

Test(huge_shortage, a_stop_waits_for_pages)
{
    take_half_away(NULL);
    kill(world->server.pid, SIGTERM);
    cr_assert(server_wait_log(&world->server, "event=shortage vm=1", 1));
    huge_pages_give_back();
    cr_assert(server_wait_log(&world->server, "event=release vm=1", 1));
    cr_assert(client_obeys(&client, "A"));
    client_tell(&client, 'q');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(server_stop(&world->server), 0);
}
