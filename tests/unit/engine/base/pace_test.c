// SPDX-License-Identifier: Apache-2.0
//
// How often one looks: often while things happen, seldom when nothing has for a while.
#include <criterion/criterion.h>

#include "engine/base/pace.h"

#define BOOT (100 * FL_NS_PER_S)

Test(pace, looks_are_often_for_a_while_after_news)
{
    struct fl_pace pace = {0};
    fl_pace_news(&pace, BOOT);
    cr_assert_eq(fl_pace_every(&pace, BOOT, FL_NEVER), FL_PACE_OFTEN);
    cr_assert_eq(fl_pace_every(&pace, BOOT + FL_PACE_CALM - 1, FL_NEVER), FL_PACE_OFTEN);
    cr_assert_eq(fl_pace_every(&pace, BOOT + FL_PACE_CALM, FL_NEVER), FL_PACE_SELDOM_MOST);
    fl_pace_news(&pace, BOOT + FL_PACE_CALM);
    cr_assert_eq(fl_pace_every(&pace, BOOT + FL_PACE_CALM + 1, FL_NEVER), FL_PACE_OFTEN);
}

// What must be seen within a limit is, and no look is more often than when things happen.
Test(pace, a_limit_makes_looks_that_are_seldom_as_often_as_it_needs)
{
    const struct fl_pace pace = {0};
    cr_assert_eq(fl_pace_every(&pace, BOOT, 2500 * FL_NS_PER_MS), 2500 * FL_NS_PER_MS);
    cr_assert_eq(fl_pace_every(&pace, BOOT, 10 * FL_PACE_SELDOM_MOST), FL_PACE_SELDOM_MOST);
    cr_assert_eq(fl_pace_every(&pace, BOOT, FL_NS_PER_MS), FL_PACE_OFTEN);
}

// Two threads read the clock: news may be a moment ahead.
Test(pace, news_of_the_next_moment_are_news)
{
    const struct fl_pace pace = {.news_ns = BOOT};
    cr_assert_not(fl_pace_is_calm(&pace, BOOT - 1));
}
