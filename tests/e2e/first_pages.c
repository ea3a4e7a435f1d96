// SPDX-License-Identifier: Apache-2.0
//
// Where a first write may bring a transparent huge page, each empty range of 2 MiB gets a page, and
// nothing else changes: bytes are right, what is given back stays so, and who dies costs nothing.
#include <criterion/criterion.h>
#include <sys/mman.h>

#include "tests/support/points.h"
#include "tests/support/traces.h"

enum { BYTES = 32 << 20, REGIONS = 2, RANGE = HUGE / PAGE };

TestSuite(first_pages, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

static struct world *world;

// --- a VM that does as it is told ---
//
// 'p' how many of its ranges have a page, and none has more; 'a' touches all; 'e' ends.

struct plan {
    int advice;
    bool gives_back; // the first range of each region, and half of the second
};

static unsigned present(const struct vmm *vmm, uint32_t page)
{
    unsigned char there[RANGE];
    unsigned count = 0;
    CHECK(mincore(vmm_page(vmm, page), HUGE, there) == 0, "mincore");
    for (unsigned i = 0; i < RANGE; i++)
        count += there[i] & 1;
    return count;
}

static uint32_t count_ranges(const struct vmm *vmm)
{
    uint32_t with_a_page = 0;
    for (unsigned i = 0; i < vmm->regions; i++) {
        uint32_t ranges;
        uint32_t page = vmm_first_range(vmm, i, &ranges);
        for (uint32_t range = 0; range < ranges; range++, page += RANGE) {
            unsigned there = present(vmm, page);
            CHECK(there <= 1, "range %u of region %u has %u pages", range, i, there);
            with_a_page += there;
        }
    }
    return with_a_page;
}

static void give_back(struct vmm *vmm, uint32_t page, uint32_t count)
{
    vmm_remove(vmm, page, count);
    for (uint32_t i = 0; i < count; i++)
        vmm->removed[page + i] = true;
}

static void give_back_ranges(struct vmm *vmm)
{
    for (unsigned i = 0; i < vmm->regions; i++) {
        uint32_t ranges;
        uint32_t page = vmm_first_range(vmm, i, &ranges);
        give_back(vmm, page, RANGE);
        give_back(vmm, page + RANGE, RANGE / 2);
    }
}

static int obedient(int channel, struct client_shared *shared, void *arg)
{
    const struct plan *plan = arg;
    struct vmm vmm;
    vmm_map(&vmm, &world->memory, PAGE, REGIONS, VMM_1_12);
    vmm_advise(&vmm, plan->advice);
    vmm_handshake(&vmm, world->socket);
    if (plan->gives_back)
        give_back_ranges(&vmm);
    atomic_store(&shared->progress, vmm_all_ranges(&vmm));
    tell_test(channel, 'h');
    for (;;) {
        char order = next_order(channel);
        if (order == 'e')
            return 0;
        if (order == 'p')
            atomic_store(&shared->progress, count_ranges(&vmm));
        if (order == 'a')
            vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
        tell_test(channel, 'd');
    }
}

// --- the test's side ---

static struct client vm;
static uint64_t ranges; // that the VM has

static void start(struct plan *plan)
{
    client_start(&vm, obedient, plan);
    cr_assert(client_says(&vm, 'h'));
    ranges = atomic_load(&vm.shared->progress);
    cr_assert_gt(ranges, BYTES / HUGE / 2);
}

static void finish(void)
{
    cr_assert(client_obeys(&vm, "a"));
    client_tell(&vm, 'e');
    cr_assert_eq(client_wait(&vm), 0, "%s", client_failure());
    world_stop(world);
}

static bool have_pages(void *wanted)
{
    return client_obeys(&vm, "p") && atomic_load(&vm.shared->progress) == *(const uint64_t *)wanted;
}

static void await_pages(uint64_t wanted)
{
    cr_assert(wait_until(have_pages, &wanted), "%llu of %llu ranges have a page",
              (unsigned long long)atomic_load(&vm.shared->progress), (unsigned long long)wanted);
}

static void each_range(enum world_memory kind)
{
    struct plan plan = {.advice = MADV_HUGEPAGE};
    need_transparent_huge();
    world = world_make(kind, BYTES);
    world_serve(world, NULL);
    start(&plan);
    await_pages(ranges);
    cr_assert_eq(world_status(world, "pages", "first"), (long long)ranges);
    cr_assert_eq(world_vm_status(world, 1, "", "faults"), 0);
    finish();
}

Test(first_pages, each_range_of_zeros_gets_one)
{
    each_range(EMPTY);
}

Test(first_pages, each_range_of_bytes_gets_one)
{
    each_range(DISTINCT);
}

Test(first_pages, each_range_of_all_kinds_of_pages_gets_one)
{
    each_range(MIXED);
}

static void none(int advice, const char *const *options)
{
    struct plan plan = {.advice = advice};
    need_transparent_huge();
    world = world_make(EMPTY, BYTES);
    world_serve(world, options);
    start(&plan);
    cr_assert(client_obeys(&vm, "a")); // by then the others would have come
    cr_assert_eq(world_status(world, "pages", "first"), 0);
    finish();
}

Test(first_pages, none_comes_where_no_fault_brings_a_huge_page)
{
    none(MADV_NOHUGEPAGE, NULL);
}

Test(first_pages, none_comes_where_nothing_may_come_ahead)
{
    static const char *const options[] = {"--prefetch", "0", NULL};
    none(MADV_HUGEPAGE, options);
}

// A range that was given back gets none, and one that was in part gets one of the rest.
Test(first_pages, none_is_of_what_was_given_back)
{
    struct plan plan = {.advice = MADV_HUGEPAGE, .gives_back = true};
    need_transparent_huge();
    world = world_make(DISTINCT, BYTES);
    world_serve(world, NULL);
    start(&plan);
    await_pages(ranges - REGIONS);
    finish();
}

// In a VM that is recorded they would hide touches.
Test(first_pages, none_hides_a_touch_from_a_recording)
{
    struct plan plan = {.advice = MADV_HUGEPAGE};
    char output[1024];
    need_transparent_huge();
    world = world_make(EMPTY, BYTES);
    world_serve(world, NULL);
    pid_t record = record_start(world, NULL);
    start(&plan);
    cr_assert(client_obeys(&vm, "a"));
    cr_assert_eq(world_status(world, "pages", "first"), 0);
    // By then half of its pages are recorded, and that is all. Without a server nobody could say
    // so.
    int status = record_wait(record, world, output, sizeof(output));
    cr_assert_eq(status, 0, "%s", output);
    finish();
}

// Its successor goes on.
Test(first_pages, come_although_the_engine_dies)
{
    struct plan plan = {.advice = MADV_HUGEPAGE};
    need_points();
    need_transparent_huge();
    world = world_make(MIXED, BYTES);
    point_begin(world, "first_page:5");
    world_serve(world, NULL);
    point_end();
    world->server.deaths = 1;
    point_arm(world);
    start(&plan);
    cr_assert(wait_until(point_struck, world), "no engine came there");
    await_pages(ranges);
    finish();
}
