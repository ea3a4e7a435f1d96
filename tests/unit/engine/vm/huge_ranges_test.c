// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/huge_ranges.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/bitmap.h"

enum { RANGES = 6, LEAST = 128 };

// Two regions: one that begins three pages before an aligned address and has two ranges, and one
// that has three and ends five pages behind the last; their image pages are in the other order.
static struct fl_layout layout;
static struct fl_huge_ranges ranges;
static uint64_t set[RANGES * FL_HUGE_PAGES / 64];
static uint64_t first; // page of the first range

static void begin(void)
{
    const char *reason = NULL;
    uint64_t front = 3 * FL_PAGE_SIZE + 2 * FL_HUGE_BYTES;
    layout = (struct fl_layout){.page_shift = FL_PAGE_SHIFT,
                                .regions = 2,
                                .region = {{.base = 64 * FL_HUGE_BYTES - 3 * FL_PAGE_SIZE,
                                            .bytes = front,
                                            .offset = 3 * FL_HUGE_BYTES + 5 * FL_PAGE_SIZE},
                                           {.base = 128 * FL_HUGE_BYTES,
                                            .bytes = 3 * FL_HUGE_BYTES + 5 * FL_PAGE_SIZE,
                                            .offset = 0}}};
    cr_assert_eq(fl_layout_finish(&layout, &reason), 0, "%s", reason);
    memset(set, 0, sizeof(set));
    first = 3;
}

static void init(void)
{
    cr_assert_eq(fl_huge_ranges_init(&ranges, &layout, set, RANGES * FL_HUGE_PAGES, LEAST), 0);
}

static void end(void)
{
    fl_huge_ranges_fini(&ranges);
}

TestSuite(huge_ranges, .init = begin, .fini = end);

Test(huge_ranges, are_those_that_lie_in_a_region_as_a_whole)
{
    uint64_t index = 99;
    init();
    cr_assert_eq(ranges.count, 5);
    cr_assert_eq(fl_huge_range_page(&layout, 0), first);
    cr_assert_eq(fl_huge_range_page(&layout, 1), first + FL_HUGE_PAGES);
    cr_assert_eq(fl_huge_range_page(&layout, 2), layout.region[1].first_page);
    cr_assert_not(fl_huge_range_of(&layout, first - 1, &index));
    cr_assert(fl_huge_range_of(&layout, first, &index));
    cr_assert_eq(index, 0);
    cr_assert(fl_huge_range_of(&layout, first + 2 * FL_HUGE_PAGES - 1, &index));
    cr_assert_eq(index, 1);
    cr_assert(fl_huge_range_of(&layout, layout.pages - 6, &index));
    cr_assert_eq(index, 4);
    cr_assert_not(fl_huge_range_of(&layout, layout.pages - 5, &index));
    for (uint64_t i = 0; i < ranges.count; i++)
        cr_assert_eq(fl_layout_address(&layout, fl_huge_range_page(&layout, i)) % FL_HUGE_BYTES, 0);
}

Test(huge_ranges, are_hot_by_the_pages_of_the_set_in_them)
{
    // Of the range at page `first`, whose image pages begin in the middle of a word.
    uint64_t image = fl_layout_image_page(&layout, first);
    fl_bits_set(set, image - 1, LEAST); // one of them is before it
    fl_bits_set(set, FL_HUGE_PAGES, LEAST);
    init();
    cr_assert_eq(ranges.range[0].pages, LEAST - 1);
    cr_assert_eq(ranges.range[0].state, FL_RANGE_COLD);
    cr_assert_eq(ranges.range[3].pages, LEAST);
    cr_assert_eq(ranges.range[3].state, FL_RANGE_HOT);
    cr_assert_eq(ranges.hot, 1);
}

// A set that ends within a range, as an image does.
Test(huge_ranges, know_the_end_of_the_set)
{
    fl_bits_set(set, 0, 200);
    cr_assert_eq(fl_huge_ranges_init(&ranges, &layout, set, 150, LEAST), 0);
    cr_assert_eq(ranges.range[2].pages, 150);
    cr_assert_eq(ranges.hot, 1);
}

Test(huge_ranges, are_split_by_pages_that_are_given_back)
{
    fl_bits_set(set, 0, RANGES * FL_HUGE_PAGES);
    init();
    for (uint64_t i = 0; i < ranges.count; i++)
        fl_huge_range_move(&ranges, i, FL_RANGE_HUGE);
    cr_assert_eq(ranges.huge, 5);
    cr_assert_eq(fl_huge_ranges_removed(&ranges, &layout, 0, first), 0);
    cr_assert_eq(fl_huge_ranges_removed(&ranges, &layout, first + FL_HUGE_PAGES - 1, 2), 2);
    cr_assert_eq(fl_huge_ranges_removed(&ranges, &layout, first + 7, 1), 0, "it was split");
    cr_assert_eq(ranges.huge, 3);
    cr_assert_eq(fl_huge_ranges_removed(&ranges, &layout, 0, layout.pages), 3);
    cr_assert_eq(ranges.huge, 0);
}

Test(huge_ranges, have_zeros_of_their_own_while_they_are_hot)
{
    bool own = true;
    fl_bits_set(set, fl_layout_image_page(&layout, first), FL_HUGE_PAGES);
    init();
    cr_assert_eq(fl_huge_ranges_span(&ranges, &layout, first + 500, 100, &own), 12);
    cr_assert(own);
    cr_assert_eq(fl_huge_ranges_span(&ranges, &layout, first + FL_HUGE_PAGES, 100, &own), 100);
    cr_assert_not(own);
    cr_assert_eq(fl_huge_ranges_span(&ranges, &layout, 0, 100, &own), 1);
    cr_assert_not(own);
    fl_huge_range_move(&ranges, 0, FL_RANGE_LEFT);
    fl_huge_ranges_span(&ranges, &layout, first, 1, &own);
    cr_assert_not(own);
}
