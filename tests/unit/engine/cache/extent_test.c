// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <stdlib.h>

#include "engine/cache/extent.h"

enum { STORED = 30000, MOST = 512 };

static struct fl_extent_item item[MOST];
static struct fl_extent extent[MOST];

static void put(unsigned at, int fd, uint64_t offset, uint32_t stored)
{
    item[at] = (struct fl_extent_item){.place = {.fd = fd, .offset = offset, .stored = stored},
                                       .order = at};
}

// Every item is in exactly one extent, whose bytes hold all of it, and no extent is too large.
static void expect_covered(unsigned items, unsigned extents)
{
    bool seen[MOST] = {false};
    for (unsigned i = 0; i < extents; i++) {
        unsigned order = MOST;
        cr_assert(extent[i].count >= 1 && extent[i].count <= FL_EXTENT_FRAMES);
        cr_assert(extent[i].bytes <= FL_EXTENT_BYTES || extent[i].count == 1);
        for (unsigned k = extent[i].first; k < extent[i].first + extent[i].count; k++) {
            const struct fl_frame_place *place = &item[k].place;
            cr_assert(!seen[item[k].order], "an item is read twice");
            seen[item[k].order] = true;
            order = item[k].order < order ? item[k].order : order;
            cr_assert_eq(place->fd, extent[i].fd);
            cr_assert_geq(place->offset, extent[i].offset);
            cr_assert_leq(place->offset + place->stored, extent[i].offset + extent[i].bytes);
        }
        cr_assert_eq(extent[i].order, order);
        cr_assert(i == 0 || extent[i - 1].order < extent[i].order, "not in the order of use");
    }
    for (unsigned i = 0; i < items; i++)
        cr_assert(seen[i], "item %u is not read", i);
}

Test(extent, neighbours_are_read_together_up_to_a_size)
{
    for (unsigned i = 0; i < 100; i++)
        put(i, 3, 1000 + (uint64_t)i * STORED, STORED);
    unsigned extents = fl_extents_plan(item, 100, extent);
    expect_covered(100, extents);
    cr_assert_eq(extents, (100 + FL_EXTENT_BYTES / STORED - 1) / (FL_EXTENT_BYTES / STORED));
    cr_assert_eq(extent[0].offset, 1000);
}

Test(extent, the_number_of_frames_is_bounded_too)
{
    for (unsigned i = 0; i < 200; i++)
        put(i, 3, (uint64_t)i * 100, 100);
    unsigned extents = fl_extents_plan(item, 200, extent);
    expect_covered(200, extents);
    cr_assert_eq(extents, (200 + FL_EXTENT_FRAMES - 1) / FL_EXTENT_FRAMES);
}

Test(extent, a_small_gap_is_read_and_a_large_one_is_not)
{
    put(0, 3, 0, STORED);
    put(1, 3, STORED + FL_EXTENT_GAP, STORED);
    put(2, 3, 2 * STORED + 2 * FL_EXTENT_GAP + 1, STORED);
    unsigned extents = fl_extents_plan(item, 3, extent);
    expect_covered(3, extents);
    cr_assert_eq(extents, 2);
    cr_assert_eq(extent[0].count, 2);
}

Test(extent, files_are_not_mixed)
{
    for (unsigned i = 0; i < 20; i++)
        put(i, i % 2 ? 3 : 4, (uint64_t)i / 2 * STORED, STORED);
    unsigned extents = fl_extents_plan(item, 20, extent);
    expect_covered(20, extents);
    cr_assert_eq(extents, 2);
    cr_assert_eq(extent[0].fd, 4, "what is used first is read first");
}

Test(extent, the_same_frame_twice_and_frames_that_overlap)
{
    put(0, 3, 5000, STORED);
    put(1, 3, 5000, STORED);
    put(2, 3, 6000, 10);
    put(3, 3, 5000, 2 * STORED);
    cr_assert_eq(fl_extents_plan(item, 4, extent), 1);
    expect_covered(4, 1);
    cr_assert_eq(extent[0].bytes, 2 * STORED);
}

Test(extent, a_frame_larger_than_an_extent_is_one_by_itself)
{
    put(0, 3, 0, 100);
    put(1, 3, 100, FL_EXTENT_BYTES + 1);
    put(2, 3, 101 + FL_EXTENT_BYTES, 100);
    cr_assert_eq(fl_extents_plan(item, 3, extent), 3);
    expect_covered(3, 3);
}

Test(extent, nothing_is_nothing)
{
    cr_assert_eq(fl_extents_plan(item, 0, extent), 0);
}

Test(extent, any_order_and_any_place)
{
    srand(1);
    for (unsigned round = 0; round < 2000; round++) {
        unsigned count = 1 + (unsigned)rand() % MOST;
        for (unsigned i = 0; i < count; i++)
            put(i, rand() % 3, (uint64_t)(rand() % 200) * 20000, 1 + (uint32_t)rand() % 65536);
        expect_covered(count, fl_extents_plan(item, count, extent));
    }
}
