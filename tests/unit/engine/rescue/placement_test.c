// SPDX-License-Identifier: Apache-2.0
//
// Where each piece of a VM's memory belongs, by what is in it.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "engine/rescue/placement.h"

enum { RANGES = 96, SAMPLES = 4096 };

#define PAGE 4096ULL
#define MIB (1ULL << 20)
#define EVERY (8 * PAGE)
#define LOW 0x7f0000000000ULL

static struct scene {
    struct fl_proc_range range[RANGES];
    size_t ranges;
    struct fl_sample sample[SAMPLES];
    struct fl_match match[SAMPLES];
    struct fl_samples samples;
    struct fl_layout layout;
} scene;

static void add_range(uint64_t start, uint64_t bytes, uint64_t page_bytes)
{
    scene.range[scene.ranges++] =
        (struct fl_proc_range){.start = start, .bytes = bytes, .page_bytes = page_bytes};
}

static void add_sample(uint64_t address, uint32_t places, uint64_t offset)
{
    size_t i = scene.samples.count++;
    cr_assert_lt(i, SAMPLES);
    scene.sample[i] = (struct fl_sample){.address = address, .hash = i + 1};
    scene.match[i] = (struct fl_match){.places = places, .page = offset / PAGE};
}

// Memory that is the image from that offset on, of which some pages have been touched; not the
// first, nor the last.
static void touched(uint64_t start, uint64_t bytes, uint64_t offset)
{
    for (uint64_t at = EVERY; at + EVERY <= bytes; at += EVERY)
        add_sample(start + at, 1, offset + at);
}

static int find(uint64_t image_bytes)
{
    struct fl_placement_of of = {.range = scene.range,
                                 .ranges = scene.ranges,
                                 .samples = &scene.samples,
                                 .match = scene.match,
                                 .image_bytes = image_bytes};
    scene.samples.sample = scene.sample;
    return fl_placement_find(&of, &scene.layout);
}

static void expect_region(uint32_t i, uint64_t base, uint64_t bytes, uint64_t offset)
{
    cr_assert_lt(i, scene.layout.regions);
    const struct fl_region *region = &scene.layout.region[i];
    cr_expect(region->base == base && region->bytes == bytes && region->offset == offset,
              "region %u is %llx + %llx at %llx", i, (unsigned long long)(region->base - LOW),
              (unsigned long long)region->bytes, (unsigned long long)region->offset);
}

TestSuite(placement, .timeout = 30);

Test(placement, one_range_that_is_the_image)
{
    add_range(LOW, 8 * MIB, PAGE);
    touched(LOW, 8 * MIB, 0);
    cr_assert_eq(find(8 * MIB), 0);
    cr_assert_eq(scene.layout.regions, 1);
    expect_region(0, LOW, 8 * MIB, 0);
}

// Mapped one after the other, top down: the kernel makes one mapping of both.
Test(placement, two_regions_side_by_side_the_second_first)
{
    add_range(LOW, 8 * MIB, PAGE);
    touched(LOW, 3 * MIB, 5 * MIB);
    touched(LOW + 3 * MIB, 5 * MIB, 0);
    cr_assert_eq(find(8 * MIB), 0);
    cr_assert_eq(scene.layout.regions, 2);
    expect_region(0, LOW + 3 * MIB, 5 * MIB, 0);
    expect_region(1, LOW, 3 * MIB, 5 * MIB);
}

Test(placement, three_regions_side_by_side)
{
    add_range(LOW, 12 * MIB, PAGE);
    touched(LOW, 3 * MIB, 0);
    touched(LOW + 3 * MIB, 5 * MIB, 7 * MIB);
    touched(LOW + 8 * MIB, 4 * MIB, 3 * MIB);
    cr_assert_eq(find(12 * MIB), 0);
    cr_assert_eq(scene.layout.regions, 3);
    expect_region(0, LOW, 3 * MIB, 0);
    expect_region(1, LOW + 8 * MIB, 4 * MIB, 3 * MIB);
    expect_region(2, LOW + 3 * MIB, 5 * MIB, 7 * MIB);
}

// A region that can be plugged in: of it nothing was touched, and it lies below the memory.
Test(placement, a_region_below_of_which_nothing_is_there)
{
    add_range(LOW, 12 * MIB, PAGE);
    touched(LOW + 4 * MIB, 8 * MIB, 0);
    cr_assert_eq(find(12 * MIB), 0);
    cr_assert_eq(scene.layout.regions, 2);
    expect_region(0, LOW + 4 * MIB, 8 * MIB, 0);
    expect_region(1, LOW, 4 * MIB, 8 * MIB);
}

Test(placement, a_range_of_its_own_of_which_nothing_is_there)
{
    add_range(LOW, 4 * MIB, PAGE);
    add_range(LOW + 64 * MIB, 8 * MIB, PAGE);
    touched(LOW + 64 * MIB, 8 * MIB, 0);
    cr_assert_eq(find(12 * MIB), 0);
    expect_region(0, LOW + 64 * MIB, 8 * MIB, 0);
    expect_region(1, LOW, 4 * MIB, 8 * MIB);
}

// Firecracker's, with more than 3 GiB and a region that can be plugged in: all side by side, and in
// the order of the image from above.
Test(placement, memory_in_two_parts_and_a_region_below_both)
{
    add_range(LOW, 16 * MIB, PAGE);
    touched(LOW + 4 * MIB, 5 * MIB, 7 * MIB);
    touched(LOW + 9 * MIB, 7 * MIB, 0);
    cr_assert_eq(find(16 * MIB), 0);
    cr_assert_eq(scene.layout.regions, 3);
    expect_region(0, LOW + 9 * MIB, 7 * MIB, 0);
    expect_region(1, LOW + 4 * MIB, 5 * MIB, 7 * MIB);
    expect_region(2, LOW, 4 * MIB, 12 * MIB);
}

// It lies where the memory would go on, but that does so elsewhere.
Test(placement, a_region_behind_memory_that_goes_on_elsewhere)
{
    add_range(LOW, 7 * MIB, PAGE);
    add_range(LOW + 64 * MIB, 5 * MIB, PAGE);
    touched(LOW, 3 * MIB, 0);
    touched(LOW + 64 * MIB, 5 * MIB, 3 * MIB);
    cr_assert_eq(find(12 * MIB), 0);
    cr_assert_eq(scene.layout.regions, 3);
    expect_region(0, LOW, 3 * MIB, 0);
    expect_region(1, LOW + 64 * MIB, 5 * MIB, 3 * MIB);
    expect_region(2, LOW + 3 * MIB, 4 * MIB, 8 * MIB);
}

// Two that nobody has touched, of one size: either could be either.
Test(placement, what_could_be_either_is_not_guessed)
{
    add_range(LOW, 4 * MIB, PAGE);
    add_range(LOW + 32 * MIB, 4 * MIB, PAGE);
    add_range(LOW + 64 * MIB, 8 * MIB, PAGE);
    touched(LOW + 64 * MIB, 8 * MIB, 0);
    cr_expect_eq(find(16 * MIB), -ENOTUNIQ);
}

// 1.10 maps anonymous memory over what the balloon took: holes in the registered memory.
Test(placement, holes_are_bridged)
{
    for (unsigned i = 0; i < 80; i++) {
        add_range(LOW + i * MIB, MIB / 2, PAGE);
        if (i % 4 != 1)
            touched(LOW + i * MIB, MIB / 2, i * MIB);
    }
    cr_assert_eq(find(80 * MIB), 0);
    cr_assert_eq(scene.layout.regions, 1);
    expect_region(0, LOW, 79 * MIB + MIB / 2, 0);
}

// A guest copies pages, and moves some when it needs larger pieces of memory.
Test(placement, copies_that_a_guest_made_do_not_count)
{
    add_range(LOW, 8 * MIB, PAGE);
    touched(LOW, 4 * MIB, 0);
    for (uint64_t i = 0; i < 200; i++)
        add_sample(LOW + 4 * MIB + i * PAGE, 1, i * 7919 % 2048 * PAGE);
    for (uint64_t i = 0; i < 6; i++)
        add_sample(LOW + 5 * MIB + i * PAGE, 1, 6 * MIB + i * PAGE);
    touched(LOW + 6 * MIB, 2 * MIB, 6 * MIB);
    cr_assert_eq(find(8 * MIB), 0);
    cr_assert_eq(scene.layout.regions, 1);
}

// By chance they are shifted as another region is: copies, in the third, of pages of the second.
Test(placement, copies_that_lie_as_another_region_does_do_not_count)
{
    add_range(LOW, 12 * MIB, PAGE);
    touched(LOW, 3 * MIB, 0);
    touched(LOW + 3 * MIB, 5 * MIB, 7 * MIB);
    touched(LOW + 8 * MIB, MIB, 3 * MIB);
    for (uint64_t i = 0; i < 3; i++)
        add_sample(LOW + 9 * MIB + i * PAGE, 1, 9 * MIB + i * PAGE);
    touched(LOW + 9 * MIB + 3 * PAGE, 3 * MIB - 3 * PAGE, 4 * MIB + 3 * PAGE);
    cr_assert_eq(find(12 * MIB), 0);
    cr_assert_eq(scene.layout.regions, 3);
    expect_region(1, LOW + 8 * MIB, 4 * MIB, 3 * MIB);
}

Test(placement, what_the_image_has_several_times_or_never_tells_nothing)
{
    add_range(LOW, 8 * MIB, PAGE);
    for (uint64_t i = 0; i < 100; i++)
        add_sample(LOW + i * EVERY, i % 2 ? 2 : 0, i * EVERY);
    cr_expect_eq(find(8 * MIB), -ENOENT);
}

Test(placement, a_shift_that_leaves_the_image_is_none)
{
    add_range(LOW, 8 * MIB, PAGE);
    touched(LOW, 8 * MIB, 4 * MIB);
    cr_expect_eq(find(8 * MIB), -ENOENT);
}

Test(placement, huge_pages)
{
    add_range(LOW, 16 * MIB, 2 * MIB);
    touched(LOW, 4 * MIB, 12 * MIB);
    touched(LOW + 4 * MIB, 12 * MIB, 0);
    cr_assert_eq(find(16 * MIB), 0);
    cr_expect_eq(scene.layout.page_shift, 21);
    cr_expect_eq(scene.layout.pages, 8);
    expect_region(0, LOW + 4 * MIB, 12 * MIB, 0);
    expect_region(1, LOW, 4 * MIB, 12 * MIB);
}

Test(placement, pages_of_two_sizes_are_none)
{
    add_range(LOW, 4 * MIB, 2 * MIB);
    add_range(LOW + 64 * MIB, 4 * MIB, PAGE);
    touched(LOW, 4 * MIB, 0);
    cr_expect_eq(find(8 * MIB), -EINVAL);
}
