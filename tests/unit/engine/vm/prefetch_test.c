// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>

#include "engine/vm/prefetch.h"

enum { WINDOW = 16, MANY = 1 << 20 };

static _Atomic uint64_t host;
static struct fl_prefetch prefetch;
static struct fl_prefetch_budget budget;

static void reset(void)
{
    prefetch = (struct fl_prefetch){0};
    host = 0;
    budget = (struct fl_prefetch_budget){WINDOW, MANY, MANY, &host};
}

TestSuite(prefetch, .init = reset);

// A fault for one page behind a page that is there; all that may be installed is.
static uint32_t fault(uint64_t page)
{
    uint32_t pages = fl_prefetch_window(&prefetch, &budget, page, 1, true);
    fl_prefetch_installing(&prefetch, &budget, page, 1, pages);
    return pages;
}

Test(prefetch, a_sweep_gets_windows_that_double_up_to_the_bound)
{
    static const uint32_t windows[] = {1, 2, 4, 8, 16, 16, 16};
    uint64_t page = 1000;
    for (unsigned i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
        cr_assert_eq(fault(page), windows[i], "fault %u", i);
        page += windows[i];
    }
    cr_assert_eq(prefetch.unproven, WINDOW - 1);
}

Test(prefetch, random_touches_get_nothing)
{
    uint64_t page = 7;
    for (unsigned i = 0; i < 10000; i++) {
        page = page * 6364136223846793005ULL + 1442695040888963407ULL;
        cr_assert_eq(fault(page >> 20), 1);
    }
    cr_assert_eq(prefetch.unproven, 0);
    cr_assert_eq(host, 0);
}

Test(prefetch, what_ends_in_random_touches_shrinks_to_nothing)
{
    uint64_t page = 1000;
    for (unsigned i = 0; i < 6; i++)
        page += fault(page);
    for (uint64_t i = 0; i < 4 * FL_STREAMS; i++)
        cr_assert_eq(fault(50000 + 100 * i), 1);
    cr_assert_eq(fault(page), 1, "the sweep is forgotten");
}

Test(prefetch, sweeps_side_by_side_do_not_disturb_each_other)
{
    uint64_t page[FL_STREAMS];
    for (unsigned i = 0; i < FL_STREAMS; i++)
        page[i] = 1000 * (i + 1);
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = 0; i < FL_STREAMS; i++)
            page[i] += fault(page[i]);
    }
    for (unsigned i = 0; i < FL_STREAMS; i++)
        cr_assert_eq(fault(page[i]), WINDOW);
}

Test(prefetch, a_sweep_lives_on_among_random_touches)
{
    uint64_t page = 1000;
    uint64_t other = 1000000;
    for (unsigned i = 0; i < 100; i++) {
        page += fault(page);
        for (unsigned k = 0; k < FL_STREAMS - 1; k++, other += 100)
            fault(other);
    }
    cr_assert_eq(fault(page), WINDOW);
}

Test(prefetch, a_page_whose_predecessor_is_missing_continues_nothing)
{
    fault(1000);
    cr_assert_eq(fl_prefetch_window(&prefetch, &budget, 1001, 1, false), 1);
}

Test(prefetch, what_a_batch_asks_for_is_always_granted)
{
    budget.vm = 0;
    cr_assert_eq(fl_prefetch_window(&prefetch, &budget, 1000, 40, true), 40);
    fl_prefetch_installing(&prefetch, &budget, 1000, 40, 40);
    cr_assert_eq(prefetch.unproven, 0);
}

Test(prefetch, a_vm_has_at_most_so_much_in_vain)
{
    budget.vm = 100;
    for (uint64_t sweep = 1; sweep < 1000; sweep++) {
        uint64_t page = 10000 * sweep;
        for (unsigned i = 0; i < 6; i++) // then it is given up, with a window unproven
            page += fault(page);
        cr_assert_leq(prefetch.unproven, 100);
    }
    cr_assert_gt(prefetch.unproven, 100 - 2 * WINDOW);
    cr_assert_eq(host, prefetch.unproven);
}

Test(prefetch, all_vms_have_at_most_so_much_in_vain)
{
    host = 1000;
    budget.host = 1000;
    uint64_t page = 1000;
    for (unsigned i = 0; i < 6; i++, page++)
        cr_assert_eq(fault(page), 1);
    host = 0;
    cr_assert_gt(fault(page), 1);
}

Test(prefetch, a_vm_that_ends_gives_back_what_it_had)
{
    uint64_t page = 1000;
    for (unsigned i = 0; i < 6; i++)
        page += fault(page);
    host += 5; // another VM's
    fl_prefetch_end(&prefetch, &budget);
    cr_assert_eq(host, 5);
}
