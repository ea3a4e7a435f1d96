// SPDX-License-Identifier: Apache-2.0
//
// Working sets become pages of 2 MiB once replay has ended (serve --huge after-replay), and nothing
// else changes: bytes are right, what is given back stays so, captures are right, and who dies
// costs nothing.
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/support/capture_world.h"
#include "tests/support/points.h"
#include "tests/support/traces.h"

enum { BYTES = 32 << 20, PAGES = BYTES / PAGE, REGIONS = 2, RANGE = HUGE / PAGE };

TestSuite(collapse, .init = need_userfaultfd, .fini = world_close, .timeout = 300);

static struct world *world;
static const char *const on[] = {"--huge", "after-replay", NULL};

// --- a VM that does as it is told ---
//
// 'h' how many huge pages it has; 'a' touches all; 'r' gives a page of each region's second range
// back; 'e' ends.

static bool is_ours(const struct vmm *vmm, unsigned long start)
{
    bool ours = false;
    for (unsigned i = 0; i < vmm->regions; i++) {
        uintptr_t base = (uintptr_t)vmm->region[i].base;
        ours = ours || (start >= base && start < base + vmm->region[i].bytes);
    }
    return ours;
}

static uint32_t huge_pages(const struct vmm *vmm)
{
    char line[512];
    unsigned long start = 0;
    unsigned long end = 0;
    unsigned long kib = 0;
    unsigned long all = 0;
    FILE *file = fopen("/proc/self/smaps", "re");
    CHECK(file, "smaps");
    while (fgets(line, sizeof(line), file)) {
        if (strchr(line, '-') && sscanf(line, "%lx-%lx ", &start, &end) == 2)
            continue;
        if (sscanf(line, "AnonHugePages: %lu", &kib) == 1 && is_ours(vmm, start))
            all += kib;
    }
    fclose(file);
    return (uint32_t)(all / (HUGE / 1024));
}

static void give_back(struct vmm *vmm)
{
    for (unsigned i = 0; i < vmm->regions; i++) {
        uint32_t ranges;
        uint32_t page = vmm_first_range(vmm, i, &ranges) + RANGE + 7;
        vmm_remove(vmm, page, 1);
        vmm->removed[page] = true;
    }
}

struct plan {
    int advice;
    bool gives_back; // right after the handshake
};

static int obedient(int channel, struct client_shared *shared, void *arg)
{
    const struct plan *plan = arg;
    struct vmm vmm;
    vmm_map(&vmm, &world->memory, PAGE, REGIONS, VMM_1_12);
    vmm_advise(&vmm, plan->advice);
    vmm_handshake(&vmm, world->socket);
    if (plan->gives_back)
        give_back(&vmm);
    atomic_store(&shared->progress, vmm_all_ranges(&vmm));
    tell_test(channel, 's');
    for (;;) {
        char order = next_order(channel);
        if (order == 'e')
            return 0;
        if (order == 'h')
            atomic_store(&shared->progress, huge_pages(&vmm));
        if (order == 'a')
            vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
        if (order == 'r')
            give_back(&vmm);
        tell_test(channel, 'd');
    }
}

// --- the test's side ---

static struct client vm;
static struct plan plan;
static long long ranges; // that the VM has
static uint32_t *order;

// Every `one_in`th page of the image, in no order, is in its trace.
static void record(struct world *of, uint32_t pages, unsigned one_in)
{
    uint32_t count = 0;
    order = random_order(pages, 7);
    uint32_t *traced = malloc(pages * sizeof(*traced));
    cr_assert_not_null(traced);
    for (uint32_t i = 0; i < pages; i++) {
        if (order[i] % one_in == 0)
            traced[count++] = order[i];
    }
    record_one(of, (struct touches){NULL, PAGE, REGIONS, traced, count});
    free(traced);
    free(order);
}

static void start(int advice, bool gives_back)
{
    plan = (struct plan){.advice = advice, .gives_back = gives_back};
    client_start(&vm, obedient, &plan);
    cr_assert(client_says(&vm, 's'));
    ranges = (long long)atomic_load(&vm.shared->progress);
    cr_assert_gt(ranges, BYTES / HUGE / 2);
}

static void begin(enum world_memory kind, const char *const *options, unsigned one_in)
{
    need_transparent_huge();
    need_collapse();
    world = world_make(kind, BYTES);
    world_serve(world, options);
    record(world, PAGES, one_in);
}

struct wanted {
    struct world *world;
    long long vm;
    const char *state;
};

static bool is_so(void *arg)
{
    const struct wanted *wanted = arg;
    return world_vm_huge_is(wanted->world, wanted->vm, wanted->state);
}

static void await_state(struct world *of, long long id, const char *state)
{
    struct wanted wanted = {of, id, state};
    if (!wait_until(is_so, &wanted))
        server_print_log(&of->server);
    cr_assert(is_so(&wanted), "the huge pages of VM %lld are not %s", id, state);
}

static long long of_vm(const char *key)
{
    return world_vm_status(world, 2, "huge", key);
}

static long long huge(void)
{
    cr_assert(client_obeys(&vm, "h"), "%s", client_failure());
    return (long long)atomic_load(&vm.shared->progress);
}

static void finish(void)
{
    cr_assert(client_obeys(&vm, "a"));
    client_tell(&vm, 'e');
    cr_assert_eq(client_wait(&vm), 0, "%s", client_failure());
    world_stop(world);
}

// --- what it is for ---

static void all_become_huge(enum world_memory kind, unsigned one_in)
{
    begin(kind, on, one_in);
    start(MADV_HUGEPAGE, false);
    await_state(world, 2, "done");
    cr_assert_eq(of_vm("wanted"), ranges);
    cr_assert_eq(of_vm("huge"), ranges, "of %lld, %lld left", ranges, of_vm("left"));
    cr_assert_eq(huge(), ranges);
    cr_assert_eq(world_vm_status(world, 2, "", "faults"), 0);
    cr_assert_eq(world_status(world, "huge", "collapsed"), ranges);
    cr_assert_gt(of_vm("filled"), 0);
    cr_assert_eq(server_logs(&world->server, "event=collapsed vm=2 image=image", 1), 1);
    finish();
}

Test(collapse, makes_huge_pages_of_a_working_set)
{
    all_become_huge(DISTINCT, 3);
}

// The trace has zeros, too: each range can be one page although replay has put them there.
Test(collapse, makes_huge_pages_where_replay_brought_zeros)
{
    all_become_huge(EMPTY, 2);
}

Test(collapse, is_off_unless_it_is_wanted)
{
    begin(DISTINCT, NULL, 2);
    start(MADV_HUGEPAGE, false);
    cr_assert(client_obeys(&vm, "a"));
    await_state(world, 2, "off");
    cr_assert_eq(huge(), 0);
    finish();
}

Test(collapse, leaves_what_is_little_of_the_working_set)
{
    begin(DISTINCT, on, 5); // 102 of 512
    start(MADV_HUGEPAGE, false);
    await_state(world, 2, "done");
    cr_assert_eq(of_vm("wanted"), 0);
    cr_assert_eq(of_vm("filled"), 0);
    cr_assert_eq(huge(), 0);
    finish();
}

// To complete them would take more zeros than half of a page of 2 MiB.
Test(collapse, leaves_what_is_mostly_zeros)
{
    begin(EMPTY, on, 3);
    start(MADV_HUGEPAGE, false);
    await_state(world, 2, "done");
    cr_assert_eq(of_vm("wanted"), ranges);
    cr_assert_eq(of_vm("left"), ranges);
    cr_assert_eq(huge(), 0);
    finish();
}

Test(collapse, gives_up_where_the_vmm_wants_no_huge_pages)
{
    begin(DISTINCT, on, 2);
    start(MADV_NOHUGEPAGE, false);
    await_state(world, 2, "done");
    cr_assert_eq(of_vm("left"), ranges);
    cr_assert_eq(huge(), 0);
    finish();
}

// --- with all that goes on ---

Test(collapse, leaves_what_was_given_back)
{
    begin(DISTINCT, on, 2);
    start(MADV_HUGEPAGE, true);
    await_state(world, 2, "done");
    cr_assert_eq(huge(), ranges - REGIONS);
    cr_assert_eq(of_vm("left"), REGIONS);
    finish();
}

Test(collapse, is_split_by_what_is_given_back)
{
    begin(DISTINCT, on, 2);
    start(MADV_HUGEPAGE, false);
    await_state(world, 2, "done");
    cr_assert(client_obeys(&vm, "r"));
    cr_assert_eq(huge(), ranges - REGIONS);
    cr_assert_eq(of_vm("split"), REGIONS);
    cr_assert_eq(of_vm("huge"), ranges - REGIONS);
    finish();
}

// Its successor goes on, and knows nothing of what was done.
static void live_through(const char *point)
{
    need_points();
    need_transparent_huge();
    need_collapse();
    world = world_make(MIXED, BYTES);
    point_begin(world, point);
    world_serve(world, on);
    point_end();
    world->server.deaths = 1;
    record(world, PAGES, 2);
    point_arm(world);
    start(MADV_HUGEPAGE, false);
    cr_assert(wait_until(point_struck, world), "no engine came to %s", point);
    await_state(world, 2, "done");
    cr_assert_gt(huge(), 0);
    cr_assert_eq(of_vm("huge"), huge());
    finish();
}

Test(collapse, goes_on_when_the_engine_dies_before_a_call)
{
    live_through("collapse:3");
}

Test(collapse, goes_on_when_the_engine_dies_behind_a_call)
{
    live_through("collapsed:5");
}

Test(collapse, goes_on_after_an_upgrade)
{
    char output[1024];
    begin(DISTINCT, on, 2);
    start(MADV_HUGEPAGE, false);
    const char *upgrade[] = {"upgrade", "--control", temp_path(&world->temp, "control.sock"), NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), upgrade), 0, "%s", output);
    await_state(world, 2, "done");
    cr_assert_eq(huge(), ranges);
    finish();
}

static bool goes_on_or_is_done(void *before)
{
    struct wanted done = {captured.world, 2, "done"};
    return world_status(captured.world, "huge", "collapsed") > *(const long long *)before ||
           is_so(&done);
}

// A VM that writes, reads and gives back, with pauses in which its pages are put together, while
// engines are killed and captures are taken. VM 2, as VM 1 was recorded.
Test(collapse, in_a_storm)
{
    enum { ROUNDS = 12 };
    struct guest *guest = &captured.guest[0];
    need_transparent_huge();
    need_collapse();
    captured.world = world_make(MIXED, CAPTURED_BYTES);
    world_serve(captured.world, on);
    snprintf(captured.control, sizeof(captured.control), "%s",
             temp_path(&captured.world->temp, "control.sock"));
    captured.image = malloc(CAPTURED_BYTES);
    captured.model = malloc(CAPTURED_BYTES);
    cr_assert(captured.image && captured.model);
    record(captured.world, CAPTURED_PAGES, 2);
    guest->transparent = true;
    guest_start(guest, 200);
    for (unsigned round = 0; round < ROUNDS; round++) {
        long long before = world_status(captured.world, "huge", "collapsed");
        cr_assert(writers_pause(guest->writers));
        if (round % 4 == 3) // it knows of no range: each is looked at anew
            kill_captured_engine();
        cr_assert(wait_until(goes_on_or_is_done, &before));
        writers_resume(guest->writers); // in the middle of it
        cr_assert(writers_go_on(guest->writers, OPERATIONS));
        if (round % 4 == 1)
            capture_works(guest, 2);
    }
    cr_assert_gt(world_status(captured.world, "huge", "collapsed"), 0);
    captured_end();
}
