// SPDX-License-Identifier: Apache-2.0
//
// What a trace has is there before it is touched, and nothing else changes: bytes are right,
// removals stay, faults are served, and who dies meanwhile costs nothing.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/points.h"
#include "tests/support/traces.h"

enum { BYTES = 32 << 20, PAGES = BYTES / PAGE, HUGES = BYTES / HUGE };

TestSuite(replay, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

static struct world *world;

// --- a VM that does as it is told ---
//
// 'p' how many pages of the trace are there (by mincore), 'm' the same of the others; 't' touches
// the trace's pages, 'f' its first one, 'a' touches all, 'r' gives the odd ones of the trace's
// first half back, 'x' touches pages of the trace while it comes; 'e' ends.

struct plan {
    uint32_t page_bytes;
    const uint32_t *trace; // of page_bytes
    uint32_t count;
    bool remove_first; // right after the handshake
};

static bool is_there(const struct vmm *vmm, uint32_t page)
{
    unsigned char there[512];
    size_t length = vmm->page_bytes;
    CHECK(mincore(vmm_page(vmm, page), length, there) == 0, "mincore");
    return there[0] & 1;
}

static void remove_odd(struct vmm *vmm, const struct plan *plan)
{
    for (uint32_t i = 1; i < plan->count / 2; i += 2) {
        vmm_remove(vmm, plan->trace[i], 1);
        vmm->removed[plan->trace[i]] = true;
    }
}

static void check(struct vmm *vmm, uint32_t page)
{
    if (vmm->removed[page])
        vmm_check_zero(vmm, page);
    else
        vmm_check(vmm, page);
}

static void count_present(const struct vmm *vmm, struct client_shared *shared,
                          const struct plan *plan)
{
    uint64_t present = 0;
    for (uint32_t i = 0; i < plan->count; i++)
        present += is_there(vmm, plan->trace[i]);
    atomic_store(&shared->progress, present);
}

static void obey(struct vmm *vmm, struct client_shared *shared, const struct plan *plan, char order)
{
    if (order == 'p')
        count_present(vmm, shared, plan);
    if (order == 'r')
        remove_odd(vmm, plan);
    for (uint32_t i = 0; order == 't' && i < plan->count; i++)
        check(vmm, plan->trace[i]);
    if (order == 'f')
        check(vmm, plan->trace[0]);
    if (order == 'a')
        vmm_touch_all(vmm, 2, VMM_RANDOM, true);
}

static int obedient(int channel, struct client_shared *shared, void *arg)
{
    const struct plan *plan = arg;
    struct vmm vmm;
    vmm_map(&vmm, &world->memory, plan->page_bytes, 2, VMM_1_12);
    vmm_handshake(&vmm, world->socket);
    if (plan->remove_first)
        remove_odd(&vmm, plan);
    tell_test(channel, 'h');
    for (;;) {
        char order = next_order(channel);
        if (order == 'e')
            return 0;
        obey(&vmm, shared, plan, order);
        tell_test(channel, 'd');
    }
}

static void end(struct client *client)
{
    client_tell(client, 'e');
    cr_assert_eq(client_wait(client), 0);
}

// --- the world ---

static uint32_t *order_of_touch;
static struct plan plan;

// The first two thirds of a permutation of its pages are in the trace of the image.
static void record(uint32_t page_bytes)
{
    uint32_t pages = BYTES / page_bytes;
    order_of_touch = random_order(pages, 11);
    plan = (struct plan){.page_bytes = page_bytes, .trace = order_of_touch, .count = pages * 2 / 3};
    record_one(world, (struct touches){NULL, page_bytes, 2, plan.trace, plan.count});
}

static void begin(enum world_memory kind, const char *const *extra)
{
    world = world_make(kind, BYTES);
    world_serve(world, extra);
    record(PAGE);
}

static void start(struct client *client)
{
    client_start(client, obedient, &plan);
    cr_assert(client_says(client, 'h'));
}

struct wanted {
    long long vm;
    const char *state;
};

static bool is_so(void *arg)
{
    const struct wanted *wanted = arg;
    return world_vm_replay_is(world, wanted->vm, wanted->state);
}

static void await_state(long long vm, const char *state)
{
    struct wanted wanted = {vm, state};
    if (!wait_until(is_so, &wanted))
        server_print_log(&world->server);
    cr_assert(is_so(&wanted), "the replay of VM %lld is not %s", vm, state);
}

static uint64_t present(struct client *client)
{
    cr_assert(client_obeys(client, "p"));
    return atomic_load(&client->shared->progress);
}

static void stop(void)
{
    free(order_of_touch);
    world_stop(world);
}

// --- what it is for ---

static void comes_before_its_touch(enum world_memory kind)
{
    struct client client;
    begin(kind, NULL);
    start(&client);
    await_state(2, "done");
    cr_assert_eq(present(&client), plan.count);
    cr_assert_eq(world_vm_status(world, 2, "replay", "pages"), plan.count);
    cr_assert_eq(world_vm_status(world, 2, "replay", "total"), plan.count);
    cr_assert_eq(world_vm_status(world, 2, "", "installed") +
                     world_vm_status(world, 2, "", "zeroed"),
                 plan.count, "more than the trace has");
    cr_assert(client_obeys(&client, "t"));
    cr_assert_eq(world_vm_status(world, 2, "", "faults"), 0);
    cr_assert(client_obeys(&client, "a"));
    cr_assert_eq(server_logs(&world->server, "event=replayed vm=2 image=image", 1), 1);
    end(&client);
    stop();
}

Test(replay, comes_before_its_touch)
{
    comes_before_its_touch(DISTINCT);
}

// Zero pages and pages that are the same, too.
Test(replay, of_all_kinds_of_pages)
{
    comes_before_its_touch(MIXED);
}

static void huge_pages(uint32_t recorded_bytes)
{
    struct client client;
    need_huge_pages(2 * HUGES);
    world = world_make(MIXED, BYTES);
    world_serve(world, NULL);
    record(recorded_bytes);
    uint32_t *huge = random_order(HUGES, 1);
    plan = (struct plan){.page_bytes = HUGE, .trace = huge, .count = HUGES};
    start(&client);
    await_state(2, "done");
    // Of small pages, two in three are in it: each huge page has some.
    uint64_t wanted = recorded_bytes == HUGE ? HUGES * 2 / 3 : HUGES;
    cr_assert_eq(present(&client), wanted);
    cr_assert_eq(world_vm_status(world, 2, "replay", "pages"), (long long)wanted * 512);
    cr_assert_eq(world_vm_status(world, 2, "", "faults"), 0);
    cr_assert(client_obeys(&client, "a"));
    end(&client);
    free(huge);
    stop();
}

Test(replay, of_a_trace_of_small_pages_on_huge_ones)
{
    huge_pages(PAGE);
}

Test(replay, of_a_trace_of_huge_pages_on_huge_ones)
{
    huge_pages(HUGE);
}

Test(replay, of_a_trace_of_huge_pages_on_small_ones)
{
    struct client client;
    need_huge_pages(HUGES);
    world = world_make(DISTINCT, BYTES);
    world_serve(world, NULL);
    record(HUGE);
    uint32_t *small = random_order(PAGES, 1);
    plan = (struct plan){.page_bytes = PAGE, .trace = small, .count = PAGES};
    start(&client);
    await_state(2, "done");
    cr_assert_eq(present(&client), HUGES * 2 / 3 * 512);
    cr_assert(client_obeys(&client, "a"));
    end(&client);
    free(small);
    stop();
}

// --- what it leaves in the cache ---

enum { IMAGE_FRAMES = BYTES / 65536, FEW_FRAMES = IMAGE_FRAMES / 8 };

static bool has_few_frames(void *arg)
{
    (void)arg;
    return world_status(world, "cache", "frames") <= FEW_FRAMES;
}

static void replayed(struct client *client, long long vm)
{
    start(client);
    await_state(vm, "done");
    cr_assert_eq(present(client), plan.count);
}

// What the first VM of an image is filled with does not stay: nobody else has asked for it. What
// the second one asks for once more does, and the third one reads nothing.
Test(replay, leaves_frames_for_those_who_come_again)
{
    struct client client[3];
    begin(DISTINCT, NULL);
    cr_assert(server_kill_engine(&world->server)); // its successor has no frames, and no VM
    long long taken = world_status(world, "cache", "taken");
    replayed(&client[0], 1);
    if (!wait_until(has_few_frames, NULL))
        server_print_log(&world->server);
    cr_assert(has_few_frames(NULL), "the frames of a VM that is alone stay");
    cr_assert_geq(world_status(world, "cache", "taken"), taken + IMAGE_FRAMES - FEW_FRAMES);
    replayed(&client[1], 2);
    cr_assert_geq(world_status(world, "cache", "frames"), IMAGE_FRAMES - FEW_FRAMES);
    long long came = world_status(world, "ahead", "frames") + world_status(world, "cache", "reads");
    replayed(&client[2], 3);
    came = world_status(world, "ahead", "frames") + world_status(world, "cache", "reads") - came;
    cr_assert_leq(came, FEW_FRAMES, "%lld frames were read once more", came);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert(client_obeys(&client[i], "a"));
        end(&client[i]);
    }
    stop();
}

// --- with all that goes on ---

// The cache holds a few frames only: it is streamed through it.
Test(replay, through_a_small_cache)
{
    static const char *const small[] = {"--cache", "1M", NULL};
    struct client client;
    begin(DISTINCT, small);
    start(&client);
    await_state(2, "done");
    cr_assert_eq(present(&client), plan.count);
    cr_assert(client_obeys(&client, "a"));
    end(&client);
    stop();
}

Test(replay, while_everything_is_touched)
{
    enum { VMS = 4 };
    struct client client[VMS];
    begin(MIXED, NULL);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < VMS; i++)
            start(&client[i]);
        for (unsigned i = 0; i < VMS; i++)
            client_tell(&client[i], 'a');
        for (unsigned i = 0; i < VMS; i++)
            cr_assert(client_says(&client[i], 'd'));
        for (unsigned i = 0; i < VMS; i++) // the first was recorded
            await_state(2 + VMS * round + i, "done");
        for (unsigned i = 0; i < VMS; i++)
            end(&client[i]);
    }
    cr_assert_gt(world_status(world, "replay", "pages"), 0);
    stop();
}

// A trace that is new is the next VM's, whoever has the one before still.
Test(replay, is_of_the_newest_trace)
{
    static const uint32_t few[] = {1, 3, 4000};
    static const char *const replace[] = {"--replace", NULL};
    char output[1024];
    struct client before;
    struct client recorded;
    struct client after;
    begin(DISTINCT, NULL);
    start(&before);
    await_state(2, "done");
    struct touches touches = {world, PAGE, 2, few, 3};
    pid_t pid = record_start(world, replace);
    client_start(&recorded, touch_in_turn, &touches);
    cr_assert(client_says(&recorded, 't'));
    end(&recorded);
    int status = record_wait(pid, world, output, sizeof(output));
    cr_assert_eq(status, 0, "%s", output);
    start(&after);
    await_state(4, "done");
    cr_assert_eq(world_vm_status(world, 4, "replay", "pages"), 3);
    cr_assert(client_obeys(&after, "a"));
    end(&after);
    end(&before);
    stop();
}

static void given_back(uint32_t page_bytes, bool first)
{
    enum { ROUNDS = 4 };
    world = world_make(DISTINCT, BYTES);
    world_serve(world, NULL);
    record(page_bytes);
    plan.remove_first = first;
    for (long long vm = 2; vm < 2 + ROUNDS; vm++) {
        struct client client;
        start(&client);
        if (!first)
            cr_assert(client_obeys(&client, "r"));
        await_state(vm, "done");
        cr_assert(client_obeys(&client, "t"));
        cr_assert(client_obeys(&client, "r")); // again, after it
        cr_assert(client_obeys(&client, "a"));
        end(&client);
    }
    stop();
}

Test(replay, leaves_alone_what_was_given_back_before)
{
    given_back(PAGE, true);
}

Test(replay, leaves_alone_what_is_given_back_meanwhile)
{
    given_back(PAGE, false);
}

Test(replay, leaves_alone_huge_pages_that_are_given_back)
{
    need_huge_pages(HUGES);
    given_back(HUGE, true);
}

// --- who dies ---

static bool no_more_descriptors(void *most)
{
    return server_descriptors(&world->server) <= *(const unsigned *)most;
}

Test(replay, of_vms_that_die_costs_nothing)
{
    enum { DEATHS = 20 };
    struct client client;
    begin(DISTINCT, NULL);
    unsigned most = server_descriptors(&world->server) + 4;
    for (unsigned i = 0; i < DEATHS; i++) {
        start(&client);
        client_kill(&client);
    }
    cr_assert(server_wait_log(&world->server, "event=detach", DEATHS + 1));
    start(&client);
    await_state(DEATHS + 2, "done");
    cr_assert_eq(present(&client), plan.count);
    cr_assert_eq(world_status(world, "replay", "running"), 0);
    end(&client);
    cr_assert(server_wait_log(&world->server, "event=detach", DEATHS + 2));
    cr_assert(wait_until(no_more_descriptors, &most)); // they are closed by the way
    stop();
}

// An engine will die at the point.
static void begin_deadly(const char *point)
{
    need_points();
    world = world_make(DISTINCT, BYTES);
    point_begin(world, point);
    world_serve(world, NULL);
    point_end();
    world->server.deaths = 1;
    record(PAGE);
    point_arm(world);
}

// Its successor goes on with the replay.
static void live_through(const char *point, bool first)
{
    struct client client;
    begin_deadly(point);
    plan.remove_first = first;
    start(&client);
    cr_assert(wait_until(point_struck, world), "no engine came to %s", point);
    await_state(2, "done");
    cr_assert_eq(present(&client), plan.count - (first ? plan.count / 4 : 0), "%s", point);
    cr_assert(client_obeys(&client, "t"));
    cr_assert(client_obeys(&client, "a"));
    end(&client);
    stop();
}

Test(replay, goes_on_when_the_engine_dies_before_it_begins)
{
    live_through("vm_kept", false);
}

Test(replay, goes_on_when_the_engine_dies_at_its_beginning)
{
    live_through("replay_begun", false);
}

Test(replay, goes_on_when_the_engine_dies_in_the_middle)
{
    live_through("replay_copied:100", false);
}

Test(replay, goes_on_when_the_engine_dies_in_the_middle_and_pages_were_given_back)
{
    live_through("replay_copied:200", true);
}

// Pages are there, and whoever waits for them was not woken: his message is still to be read, so
// that the successor answers it. That comes when a guest is at the heels of its replay: not every
// one gets there.
Test(replay, answers_whom_its_predecessor_had_no_time_to_wake)
{
    enum { VMS = 50 };
    begin_deadly("burst_unwoken:2");
    for (unsigned vm = 0; vm < VMS && !point_struck(world); vm++) {
        struct client client;
        start(&client);
        cr_assert(client_obeys(&client, "t"), "VM %u is left waiting", vm);
        end(&client);
    }
    cr_assert(point_struck(world), "no engine came there");
    stop();
}

Test(replay, goes_on_when_the_engine_dies_at_its_end)
{
    live_through("replay_done", false);
}

// Another engine takes over, while nothing can be installed: memory is said to be scarce.
static const char *const scarce[] = {"--replay-reserve", "100", "--upgrade-trial", "100", NULL};

Test(replay, goes_on_after_an_upgrade)
{
    char output[1024];
    struct client client;
    begin(DISTINCT, scarce);
    start(&client);
    await_state(2, "paused");
    const char *upgrade[] = {"upgrade", "--control", temp_path(&world->temp, "control.sock"), NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), upgrade), 0, "%s", output);
    await_state(2, "paused"); // its successor knows that there is something to go on with
    cr_assert(client_obeys(&client, "a"));
    end(&client);
    stop();
}

// What the trace has in a row comes with its first page, at once, and no more than that: nothing is
// replayed meanwhile, and there is no other prefetch.
Test(replay, a_fault_brings_what_the_trace_has_behind_it)
{
    enum { FIRST = 512, ROW = 200, BEHIND = 16 };
    static const char *const options[] = {"--replay-reserve", "100", "--prefetch", "0", NULL};
    struct client client;
    uint32_t row[ROW];
    for (uint32_t i = 0; i < ROW; i++)
        row[i] = FIRST + i;
    world = world_make(DISTINCT, BYTES);
    world_serve(world, options);
    record_one(world, (struct touches){NULL, PAGE, 2, row, ROW});
    plan = (struct plan){.page_bytes = PAGE, .trace = row, .count = ROW};
    start(&client);
    await_state(2, "paused");
    cr_assert(client_obeys(&client, "f"));
    uint64_t there = present(&client);
    cr_assert_gt(there, 1);
    cr_assert_leq(there, BEHIND, "no more than its frame");
    cr_assert_eq(world_vm_status(world, 2, "", "faults"), 1);
    cr_assert_eq(world_vm_status(world, 2, "", "installed"), (long long)there);
    cr_assert(client_obeys(&client, "t"));
    cr_assert_leq(world_vm_status(world, 2, "", "faults"), 1 + ROW / BEHIND + 1);
    cr_assert_eq(world_vm_status(world, 2, "", "installed"), ROW, "nothing but the trace");
    cr_assert(client_obeys(&client, "a"));
    end(&client);
    stop();
}

// The next VM of an image that nobody had meanwhile gets what was made of the trace for the last,
// unless there is another trace by now.
Test(replay, reads_a_trace_once)
{
    struct client client;
    begin(DISTINCT, NULL);
    for (unsigned vm = 2; vm < 4; vm++) {
        start(&client);
        await_state(vm, "done");
        cr_assert_eq(present(&client), plan.count);
        end(&client);
        cr_assert(server_wait_log(&world->server, "event=detach", vm));
    }
    cr_assert_eq(server_logs(&world->server, "event=trace image=image", 1), 1);
    record_one(world, (struct touches){NULL, PAGE, 2, order_of_touch, BYTES / PAGE});
    start(&client);
    await_state(5, "done");
    cr_assert_eq(present(&client), plan.count);
    end(&client);
    cr_assert_eq(server_logs(&world->server, "event=trace image=image", 2), 2);
    stop();
}

// A VM whose replay has ended is not begun with again.
Test(replay, is_done_once)
{
    struct client client;
    begin(DISTINCT, NULL);
    start(&client);
    await_state(2, "done");
    cr_assert(client_obeys(&client, "r"));
    world->server.deaths++;
    cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
    await_state(2, "none");
    cr_assert(client_obeys(&client, "a"));
    end(&client);
    stop();
}

// --- its bounds ---

Test(replay, pauses_while_memory_is_scarce)
{
    struct client client;
    begin(DISTINCT, scarce);
    start(&client);
    await_state(2, "paused");
    cr_assert_eq(present(&client), 0);
    cr_assert(server_wait_log(&world->server, "event=replay_paused", 1));
    cr_assert_eq(world_vm_status(world, 2, "replay", "pages"), 0);
    cr_assert(client_obeys(&client, "t")); // faults are served all the same
    cr_assert_eq(world_vm_status(world, 2, "replay", "late"),
                 world_vm_status(world, 2, "", "faults"));
    cr_assert_gt(world_vm_status(world, 2, "", "faults"), 0);
    cr_assert(client_obeys(&client, "a"));
    end(&client);
    stop();
}

// Late is what replay has to bring and a fault asked for first: each page of the trace once (but
// what came with another is not), and nothing that was given back.
Test(replay, counts_what_it_is_late_for_once)
{
    static const char *const options[] = {"--replay-reserve", "100", "--prefetch", "0", NULL};
    struct client client;
    begin(DISTINCT, options);
    start(&client);
    await_state(2, "paused");
    cr_assert(client_obeys(&client, "t"));
    long long faults = world_vm_status(world, 2, "", "faults");
    cr_assert(faults > 0 && faults <= plan.count);
    cr_assert_eq(world_vm_status(world, 2, "replay", "late"), faults);
    cr_assert(client_obeys(&client, "r"));
    cr_assert(client_obeys(&client, "t"));
    cr_assert_gt(world_vm_status(world, 2, "", "faults"), faults);
    cr_assert_eq(world_vm_status(world, 2, "replay", "late"), faults);
    end(&client);
    stop();
}

Test(replay, takes_no_more_than_it_may)
{
    static const char *const most[] = {"--replay-max", "1M", NULL};
    struct client client;
    begin(DISTINCT, most);
    start(&client);
    await_state(2, "done");
    uint64_t there = present(&client);
    cr_assert(there >= 256 && there < 256 + 16, "%llu pages", (unsigned long long)there);
    end(&client);
    stop();
}

Test(replay, can_be_off)
{
    static const char *const off[] = {"--replay", "off", NULL};
    struct client client;
    begin(DISTINCT, off);
    start(&client);
    await_state(2, "none");
    cr_assert_eq(present(&client), 0);
    cr_assert(client_obeys(&client, "a"));
    end(&client);
    stop();
}

Test(replay, is_not_for_who_is_recorded)
{
    char output[1024];
    struct client client;
    begin(DISTINCT, NULL);
    pid_t pid = record_start(world, NULL);
    start(&client);
    await_state(2, "none");
    cr_assert_eq(present(&client), 0);
    cr_assert(client_obeys(&client, "t"));
    end(&client);
    int status = record_wait(pid, world, output, sizeof(output));
    cr_assert_eq(status, 0, "%s", output);
    stop();
}

// A VM that is being released needs all of its memory, not its working set.
Test(replay, makes_way_for_a_release)
{
    struct client client;
    begin(DISTINCT, scarce);
    start(&client);
    await_state(2, "paused");
    stop();
    cr_assert(client_obeys(&client, "a"));
    end(&client);
}

// --- traces that will not do ---

static void spoil_trace(void)
{
    char path[2 * TEST_PATH];
    snprintf(path, sizeof(path), "%s/traces/image.trace", world->store);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pwrite(fd, "damaged", 7, 4096), 7);
    close(fd);
}

static void is_served_without(const char *log)
{
    enum { VMS = 3 };
    struct client client[VMS];
    for (unsigned i = 0; i < VMS; i++) { // one line, however many VMs
        start(&client[i]);
        await_state(2 + i, "none");
        cr_assert_eq(present(&client[i]), 0);
        cr_assert(client_obeys(&client[i], "a"));
    }
    for (unsigned i = 0; i < VMS; i++)
        end(&client[i]);
    cr_assert_eq(server_logs(&world->server, log, 1), 1);
}

Test(replay, of_a_damaged_trace_is_none)
{
    begin(DISTINCT, NULL);
    spoil_trace();
    is_served_without("event=trace_failed image=image reason=\"its file is damaged\"");
    stop();
}

Test(replay, of_another_image_s_trace_is_none)
{
    char output[1024];
    begin(DISTINCT, NULL);
    const char *file = temp_path(&world->temp, "other");
    memory_free(&world->memory);
    memory_make_distinct(&world->memory, file, BYTES, 99);
    const char *pack[] = {"pack",  "--store",   world->store, "--name",
                          "image", "--replace", file,         NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), pack), 0, "%s", output);
    is_served_without("event=trace_failed image=image reason=\"it was recorded from other content");
    record(PAGE); // and then it has one again
    struct client client;
    start(&client);
    await_state(6, "done"); // the fifth was recorded
    cr_assert_eq(present(&client), plan.count);
    end(&client);
    stop();
}

// Frames that cannot be read are left to faults, of which there are none.
Test(replay, poisons_nothing)
{
    static const char *const impatient[] = {"--retries", "0", "--cache", "1M", NULL};
    char command[2 * TEST_PATH];
    struct client client;
    begin(DISTINCT, impatient);
    snprintf(
        command, sizeof(command),
        "dd if=/dev/urandom bs=1M seek=1 count=4 conv=notrunc of=\"$(echo '%s'/packs/*.pack)\"",
        world->store);
    cr_assert_eq(system(command), 0); // NOLINT(cert-env33-c,concurrency-mt-unsafe)
    start(&client);
    await_state(2, "done");
    uint64_t there = present(&client);
    cr_assert(there > 0 && there < plan.count, "%llu pages", (unsigned long long)there);
    cr_assert_eq(world_vm_status(world, 2, "", "poisoned"), 0);
    client_kill(&client);
    stop();
}
