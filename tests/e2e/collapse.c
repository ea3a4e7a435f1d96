// SPDX-License-Identifier: Apache-2.0
//
// Working sets become pages of 2 MiB once replay has ended (serve --huge after-replay), and nothing
// else changes: bytes are right, what is given back stays so, captures are right, and who dies
// costs nothing.
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/support/capture_world.h"
#include "tests/support/collapse_world.h"
#include "tests/support/points.h"

enum { REGIONS = COLLAPSE_REGIONS };

TestSuite(collapse, .init = need_userfaultfd, .fini = world_close, .timeout = 300);

static struct world *world;
static const char *const on[] = {"--huge", "after-replay", NULL};

// --- what it is for ---

static void all_become_huge(enum world_memory kind, unsigned one_in)
{
    world = collapse_begin(kind, on, one_in);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE});
    collapse_await(world, 2, "done");
    cr_assert_eq(collapse_of("wanted"), collapse_vm.ranges);
    cr_assert_eq(collapse_of("huge"), collapse_vm.ranges, "of %lld, %lld left", collapse_vm.ranges,
                 collapse_of("left"));
    cr_assert_eq(collapse_huge(), collapse_vm.ranges);
    cr_assert_eq(world_vm_status(world, 2, "", "faults"), 0);
    cr_assert_eq(world_status(world, "huge", "collapsed"), collapse_vm.ranges);
    cr_assert_gt(collapse_of("filled"), 0);
    cr_assert_eq(server_logs(&world->server, "event=collapsed vm=2 image=image", 1), 1);
    collapse_finish();
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
    world = collapse_begin(DISTINCT, NULL, 2);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE});
    collapse_tell("a");
    collapse_await(world, 2, "off");
    cr_assert_eq(collapse_huge(), 0);
    collapse_finish();
}

Test(collapse, leaves_what_is_little_of_the_working_set)
{
    world = collapse_begin(DISTINCT, on, 5); // 102 of 512
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE});
    collapse_await(world, 2, "done");
    cr_assert_eq(collapse_of("wanted"), 0);
    cr_assert_eq(collapse_of("filled"), 0);
    cr_assert_eq(collapse_huge(), 0);
    collapse_finish();
}

// To complete them would take more zeros than half of a page of 2 MiB.
Test(collapse, leaves_what_is_mostly_zeros)
{
    world = collapse_begin(EMPTY, on, 3);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE});
    collapse_await(world, 2, "done");
    cr_assert_eq(collapse_of("wanted"), collapse_vm.ranges);
    cr_assert_eq(collapse_of("left"), collapse_vm.ranges);
    cr_assert_eq(collapse_huge(), 0);
    collapse_finish();
}

Test(collapse, gives_up_where_the_vmm_wants_no_huge_pages)
{
    world = collapse_begin(DISTINCT, on, 2);
    collapse_start(world, (struct collapse_plan){.advice = MADV_NOHUGEPAGE});
    collapse_await(world, 2, "done");
    cr_assert_eq(collapse_of("left"), collapse_vm.ranges);
    cr_assert_eq(collapse_huge(), 0);
    collapse_finish();
}

// --- with all that goes on ---

Test(collapse, leaves_what_was_given_back)
{
    world = collapse_begin(DISTINCT, on, 2);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE, .gives_back = true});
    collapse_await(world, 2, "done");
    cr_assert_eq(collapse_huge(), collapse_vm.ranges - REGIONS);
    cr_assert_eq(collapse_of("left"), REGIONS);
    collapse_finish();
}

Test(collapse, is_split_by_what_is_given_back)
{
    world = collapse_begin(DISTINCT, on, 2);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE});
    collapse_await(world, 2, "done");
    collapse_tell("r");
    cr_assert_eq(collapse_huge(), collapse_vm.ranges - REGIONS);
    cr_assert_eq(collapse_of("split"), REGIONS);
    cr_assert_eq(collapse_of("huge"), collapse_vm.ranges - REGIONS);
    collapse_finish();
}

// Its successor goes on, and knows nothing of what was done.
static void live_through(const char *point)
{
    need_points();
    collapse_need();
    world = world_make(MIXED, COLLAPSE_BYTES);
    point_begin(world, point);
    world_serve(world, on);
    point_end();
    world->server.deaths = 1;
    collapse_record(world, COLLAPSE_PAGES, 2);
    point_arm(world);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE});
    cr_assert(wait_until(point_struck, world), "no engine came to %s", point);
    collapse_await(world, 2, "done");
    cr_assert_gt(collapse_huge(), 0);
    cr_assert_eq(collapse_of("huge"), collapse_huge());
    collapse_finish();
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
    world = collapse_begin(DISTINCT, on, 2);
    collapse_start(world, (struct collapse_plan){.advice = MADV_HUGEPAGE});
    const char *upgrade[] = {"upgrade", "--control", temp_path(&world->temp, "control.sock"), NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), upgrade), 0, "%s", output);
    collapse_await(world, 2, "done");
    cr_assert_eq(collapse_huge(), collapse_vm.ranges);
    collapse_finish();
}

// With VM 2 to come, as VM 1 was recorded.
static void serve_captured(void)
{
    collapse_need();
    captured.world = world_make(MIXED, CAPTURED_BYTES);
    world_serve(captured.world, on);
    snprintf(captured.control, sizeof(captured.control), "%s",
             temp_path(&captured.world->temp, "control.sock"));
    captured.image = malloc(CAPTURED_BYTES);
    captured.model = malloc(CAPTURED_BYTES);
    cr_assert(captured.image && captured.model);
    collapse_record(captured.world, CAPTURED_PAGES, 2);
    captured.guest[0].transparent = true;
}

static bool goes_on_or_is_done(void *before)
{
    return world_status(captured.world, "huge", "collapsed") > *(const long long *)before ||
           world_vm_huge_is(captured.world, 2, "done");
}

// Or, where what is left is tried again after pauses only, not.
static void let_it_go_on(long long before)
{
    for (unsigned i = 0; i < 100 && !goes_on_or_is_done(&before); i++)
        poll(NULL, 0, 20);
}

// What a capture has protected and freed again is looked at anew.
Test(collapse, goes_on_after_a_capture)
{
    struct guest *guest = &captured.guest[0];
    struct world *of = NULL;
    serve_captured();
    of = captured.world;
    guest_start(guest, 0);
    cr_assert(writers_pause(guest->writers));
    collapse_await(of, 2, "done");
    long long huge = world_vm_status(of, 2, "huge", "huge");
    cr_assert_gt(huge, 0);
    writers_resume(guest->writers);
    capture_works(guest, 2);
    cr_assert(writers_pause(guest->writers));
    collapse_await(of, 2, "done");
    cr_assert_eq(world_vm_status(of, 2, "huge", "huge"), huge);
    cr_assert_geq(world_status(of, "huge", "collapsed"), 2 * huge);
    writers_resume(guest->writers);
    captured_end();
}

// A VM that writes, reads and gives back, with pauses in which its pages are put together, while
// engines are killed and captures are taken.
Test(collapse, in_a_storm)
{
    enum { ROUNDS = 12 };
    struct guest *guest = &captured.guest[0];
    serve_captured();
    guest_start(guest, 200);
    for (unsigned round = 0; round < ROUNDS; round++) {
        long long before = world_status(captured.world, "huge", "collapsed");
        cr_assert(writers_pause(guest->writers));
        if (round % 4 == 3) // it knows of no range: each is looked at anew
            kill_captured_engine();
        let_it_go_on(before);
        writers_resume(guest->writers); // in the middle of it
        cr_assert(writers_go_on(guest->writers, OPERATIONS));
        if (round % 4 == 1)
            capture_works(guest, 2);
    }
    cr_assert_gt(world_status(captured.world, "huge", "collapsed"), 0);
    captured_end();
}
