// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>

#include "engine/template/budget.h"
#include "snapshot/read.h"

Test(template_budget, gives_all_that_is_asked_for_or_nothing)
{
    struct fl_template_budget budget;
    fl_template_budget_init(&budget, UINT64_C(10) << FL_PAGE_SHIFT);
    cr_assert(fl_template_budget_reserve(&budget, 8));
    cr_assert_not(fl_template_budget_reserve(&budget, 3));
    cr_assert(fl_template_budget_reserve(&budget, 2));
    cr_assert_not(fl_template_budget_reserve(&budget, 1));
    fl_template_budget_release(&budget, 1);
    cr_assert(fl_template_budget_reserve(&budget, 1));
}

// What a predecessor filled is there, whatever the limit is now.
Test(template_budget, counts_what_is_there_beyond_the_limit)
{
    struct fl_template_budget budget;
    fl_template_budget_init(&budget, UINT64_C(10) << FL_PAGE_SHIFT);
    fl_template_budget_take(&budget, 25);
    cr_assert_not(fl_template_budget_reserve(&budget, 1));
    fl_template_budget_release(&budget, 16);
    cr_assert(fl_template_budget_reserve(&budget, 1));
    cr_assert_not(fl_template_budget_reserve(&budget, 1));
}

Test(template_budget, is_a_part_of_the_hosts_memory_unless_a_limit_is_given)
{
    struct fl_template_budget budget;
    fl_template_budget_init(&budget, 0);
    cr_assert_gt(budget.limit, 0);
    cr_assert(fl_template_budget_reserve(&budget, budget.limit));
    cr_assert_not(fl_template_budget_reserve(&budget, 1));
}
