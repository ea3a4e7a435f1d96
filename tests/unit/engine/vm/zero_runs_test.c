// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>

#include "engine/vm/zero_runs.h"

static struct fl_zero_runs runs;

static void reset(void)
{
    runs = (struct fl_zero_runs){0};
}

TestSuite(zero_runs, .init = reset);

// A fault for one page of memory that is all zeros, of which nothing is there: brings the block.
static uint32_t fault(uint64_t page)
{
    uint32_t pages = fl_zero_runs_window(&runs, page, false);
    fl_zero_runs_brought(&runs, page & ~(uint64_t)(pages - 1), pages, 1);
    return pages;
}

// The same in a sweep, where the pages before, or behind, are there already.
static uint32_t fault_up(uint64_t page)
{
    uint32_t pages = fl_zero_runs_window(&runs, page, false);
    uint32_t left = pages - (uint32_t)(page & (pages - 1));
    fl_zero_runs_brought(&runs, page, left, 1);
    return left;
}

static uint32_t fault_down(uint64_t page)
{
    uint32_t pages = fl_zero_runs_window(&runs, page, false);
    uint32_t before = (uint32_t)(page & (pages - 1));
    fl_zero_runs_brought(&runs, page - before, before + 1, 1);
    return before + 1;
}

Test(zero_runs, a_sweep_doubles_up_to_the_bound)
{
    uint64_t page = 4096;
    unsigned faults = 0;
    for (; page < 4096 + 64 * FL_ZERO_RUN_MOST; faults++)
        page += fault_up(page);
    cr_assert_leq(faults, 64 + 10);
    cr_assert_leq(runs.unproven, FL_ZERO_RUN_MOST);
}

Test(zero_runs, so_does_one_that_goes_down)
{
    uint64_t page = 128 * FL_ZERO_RUN_MOST - 1;
    unsigned faults = 0;
    for (; page > 64 * FL_ZERO_RUN_MOST; faults++)
        page -= fault_down(page);
    cr_assert_leq(faults, 64 + 10);
}

Test(zero_runs, touches_here_and_there_bring_nothing_more)
{
    for (uint64_t i = 0; i < 10000; i++)
        cr_assert_eq(fault(i * 1000003 % 1000000007), 1);
    cr_assert_eq(runs.unproven, 0);
}

static void grow(void)
{
    uint64_t page = 4096;
    while (runs.level < 9)
        page += fault_up(page);
}

// What was brought, and no sweep reaches it: the bound is for all such runs together.
Test(zero_runs, what_comes_in_vain_is_bounded)
{
    grow();
    uint64_t bound = FL_ZERO_RUN_MOST + runs.proven / 8;
    for (uint64_t i = 1; i < 1000; i++)
        fault(i << 20);
    cr_assert_leq(runs.unproven, bound);
}

// Blocks in no order, each used as a whole before the next: only a look can tell.
Test(zero_runs, a_look_lets_it_go_on)
{
    unsigned brought = 0;
    grow();
    for (uint64_t i = 1; i < 100; i++) {
        struct fl_zero_run *run = fl_zero_runs_doubtful(&runs, (i * 37 % 100) << 20);
        if (run)
            fl_zero_runs_seen(&runs, run, run->pages);
        brought += fault((i * 37 % 100) << 20);
    }
    cr_assert_gt(brought, 99 * FL_ZERO_RUN_MOST * 3 / 4);
}

Test(zero_runs, a_look_in_vain_is_not_repeated_at_once)
{
    unsigned looks = 0;
    grow();
    for (uint64_t i = 1; i < 1000; i++) {
        struct fl_zero_run *run = fl_zero_runs_doubtful(&runs, i << 20);
        if (run)
            fl_zero_runs_seen(&runs, run, 1);
        looks += run != NULL;
        fault(i << 20);
    }
    cr_assert_leq(looks, 1000 / 16 + 1);
    cr_assert_lt(runs.level, 9, "and less is tried from then on");
}

// A sweep that is in the middle of its run is not written off by it.
Test(zero_runs, what_a_look_has_seen_counts_once)
{
    grow();
    uint64_t proven = runs.proven;
    uint64_t unproven = runs.unproven;
    struct fl_zero_run *run = &runs.run[runs.current];
    uint32_t half = run->pages / 2;
    fl_zero_runs_seen(&runs, run, half);
    fl_zero_runs_seen(&runs, run, half);
    cr_assert_eq(runs.proven - proven, unproven - runs.unproven);
    cr_assert_eq(run->unproven, run->pages - half);
}

// Pages at the edges of each other's runs: no sweep has been through these.
Test(zero_runs, an_edge_proves_nothing_where_it_can_be_looked)
{
    uint32_t pages = 0;
    grow();
    uint64_t bound = FL_ZERO_RUN_MOST + runs.proven / 8;
    for (uint64_t page = 1 << 20; page < 2 << 20; page += pages) {
        struct fl_zero_run *run = fl_zero_runs_doubtful(&runs, page);
        if (run)
            fl_zero_runs_seen(&runs, run, 1);
        pages = fl_zero_runs_window(&runs, page, true);
        fl_zero_runs_brought(&runs, page, pages, 1);
    }
    cr_assert_leq(runs.unproven, bound);
}
