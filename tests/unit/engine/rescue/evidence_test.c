// SPDX-License-Identifier: Apache-2.0
//
// What counts for an image and what against it, and how much of it is enough.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/rescue/image_match.h"

// Of the image the first half has pages that all differ, the third quarter is a hole, and the last
// has one page again and again.
enum { PAGE = 4096, PAGES = 256, HALF = PAGES / 2, HOLE = PAGES / 2, SAME = PAGES / 4 * 3 };

#define BASE 0x7f0000000000ULL

static char directory[64];

static struct scene {
    struct fl_image *image;
    struct fl_sample sample[PAGES];
    struct fl_match match[PAGES];
    struct fl_samples samples;
    struct fl_layout layout;
    struct fl_image_match found;
} scene;

static void make_page(uint8_t *page, unsigned number)
{
    for (unsigned i = 0; i < PAGE; i++)
        page[i] = (uint8_t)(number * 31 + i * (number + 1) + 1);
    memcpy(page, &number, sizeof(number));
}

static struct fl_image *make_image(const char *name, unsigned first)
{
    char path[128];
    uint8_t page[PAGE];
    struct fl_image *image = NULL;
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && ftruncate(fd, (off_t)PAGES * PAGE) == 0);
    for (unsigned i = 0; i < PAGES; i++) {
        if (i >= HOLE && i < SAME)
            continue;
        make_page(page, i < HALF ? first + i : 9999);
        cr_assert_eq(pwrite(fd, page, PAGE, (off_t)i * PAGE), PAGE);
    }
    close(fd);
    cr_assert_eq(fl_image_open_raw(path, &image), 0);
    unlink(path);
    return image;
}

static void begin(void)
{
    snprintf(directory, sizeof(directory), "/tmp/evidence-test-XXXXXX");
    cr_assert(mkdtemp(directory));
    scene.image = make_image("image", 1);
    scene.samples.sample = scene.sample;
}

static void end(void)
{
    fl_image_unref(scene.image);
    rmdir(directory);
}

TestSuite(evidence, .init = begin, .fini = end, .timeout = 30);

// The page of memory has that content: 0 is zeros, 1 to HALF the image's own.
static void has(unsigned page, unsigned number)
{
    uint8_t bytes[PAGE] = {0};
    if (number > 0)
        make_page(bytes, number);
    scene.sample[scene.samples.count++] =
        (struct fl_sample){.address = BASE + (uint64_t)page * PAGE,
                           .hash = fl_sample_hash(bytes),
                           .zero = number == 0};
}

static void has_own(unsigned from, unsigned count)
{
    for (unsigned i = from; i < from + count; i++)
        has(i, i + 1);
}

static void has_others(unsigned from, unsigned count)
{
    for (unsigned i = from; i < from + count; i++)
        has(i, 5000 + i);
}

// Regions of that many pages each, in their order.
static void judge(const unsigned *pages, uint32_t regions)
{
    const char *reason = NULL;
    uint64_t at = 0;
    scene.layout = (struct fl_layout){.page_shift = 12, .regions = regions};
    for (uint32_t i = 0; i < regions; i++) {
        scene.layout.region[i] =
            (struct fl_region){.base = BASE + at, .bytes = (uint64_t)pages[i] * PAGE, .offset = at};
        at += scene.layout.region[i].bytes;
    }
    cr_assert_eq(fl_layout_finish(&scene.layout, &reason), 0, "%s", reason);
    cr_assert_eq(fl_matches_find(&scene.samples, scene.image, scene.match), 0);
    fl_image_match(&scene.samples, scene.match, &scene.layout, scene.image, &scene.found);
}

static void judge_one(void)
{
    judge((const unsigned[]){PAGES}, 1);
}

Test(evidence, each_kind_of_page_is_counted_as_such)
{
    has(0, 1);           // its own
    has(1, 2);           //
    has(2, 9);           // elsewhere in the image
    has(3, 5000);        // not in the image
    has(4, 0);           // zero where the image is not
    has(HOLE, 5001);     // not zero where the image is
    has(HOLE + 1, 0);    // zero in both
    has(SAME, 9999);     // several times in the image
    has(HOLE + 2, 9999); //
    judge_one();
    const struct fl_image_match_count *all = &scene.found.all;
    cr_expect_eq(all->same, 2);
    cr_expect_eq(all->elsewhere, 1);
    cr_expect_eq(all->changed, 2);
    cr_expect_eq(all->written, 1);
    cr_expect_eq(all->silent, 3);
    cr_expect_eq(fl_image_match_speaking(all), 6);
}

Test(evidence, its_own_pages_fit)
{
    has_own(0, FL_IMAGE_MATCH_ENOUGH);
    judge_one();
    cr_expect_eq(scene.found.verdict, FL_FIT_YES);
}

Test(evidence, fewer_say_nothing)
{
    has_own(0, FL_IMAGE_MATCH_ENOUGH - 1);
    judge_one();
    cr_expect_eq(scene.found.verdict, FL_FIT_UNKNOWN);
}

Test(evidence, a_guest_changes_three_of_four_pages)
{
    has_own(0, 20);
    has_others(20, 60);
    judge_one();
    cr_expect_eq(scene.found.verdict, FL_FIT_YES);
    has_others(80, 1);
    judge_one();
    cr_expect_eq(scene.found.verdict, FL_FIT_NO);
}

// The image is mostly empty: what the guest has there speaks against it.
Test(evidence, pages_where_the_image_is_zero_speak_against_it)
{
    has_own(0, FL_IMAGE_MATCH_ENOUGH);
    has_others(HOLE, 48);
    judge_one();
    cr_expect_eq(scene.found.verdict, FL_FIT_YES);
    has_others(HOLE + 48, 1);
    judge_one();
    cr_expect_eq(scene.found.verdict, FL_FIT_NO);
}

Test(evidence, what_is_zero_in_both_or_common_says_nothing)
{
    for (unsigned i = HOLE; i < SAME; i++)
        has(i, 0);
    for (unsigned i = SAME; i < PAGES; i++)
        has(i, 9999);
    judge_one();
    cr_expect_eq(scene.found.all.silent, PAGES / 2);
    cr_expect_eq(scene.found.verdict, FL_FIT_UNKNOWN);
}

Test(evidence, another_images_memory_does_not_fit)
{
    has_others(0, PAGES);
    judge_one();
    cr_expect_eq(scene.found.verdict, FL_FIT_NO);
}

Test(evidence, each_region_must_fit)
{
    has_own(0, 64);
    has_others(64, 16);
    judge_one();
    cr_expect_eq(scene.found.verdict, FL_FIT_YES);
    judge((const unsigned[]){64, PAGES - 64}, 2);
    cr_expect_eq(scene.found.fit[0], FL_FIT_YES);
    cr_expect_eq(scene.found.fit[1], FL_FIT_NO);
    cr_expect_eq(scene.found.verdict, FL_FIT_NO);
}

Test(evidence, one_region_of_which_nothing_is_there_has_its_place_by_elimination)
{
    has_own(0, 32);
    judge((const unsigned[]){64, PAGES - 64}, 2);
    cr_expect_eq(scene.found.fit[1], FL_FIT_UNKNOWN);
    cr_expect_eq(scene.found.verdict, FL_FIT_YES);
    judge((const unsigned[]){32, 32, PAGES - 64}, 3); // two of them could be swapped
    cr_expect_eq(scene.found.verdict, FL_FIT_UNKNOWN);
}

// Memory that was plugged in after the snapshot: whatever the guest has written there is no matter.
Test(evidence, a_region_of_which_the_image_is_zero)
{
    has_own(0, 32);
    has_others(HOLE, SAME - HOLE);
    judge((const unsigned[]){HALF, SAME - HOLE, PAGES - SAME}, 3);
    cr_expect(scene.found.zero[1]);
    cr_expect_not(scene.found.zero[0]);
    cr_expect_eq(scene.found.verdict, FL_FIT_YES);
}

// --- two images ---

Test(evidence, of_two_images_the_one_whose_pages_they_are)
{
    struct fl_image_match_rivals rivals;
    struct fl_image *other = make_image("other", 1001);
    has_own(0, 40);
    for (unsigned i = 40; i < 50; i++)
        has(i, 1001 + i);
    judge_one();
    cr_assert_eq(fl_image_match_compare(&scene.samples, &scene.layout, scene.image, other, &rivals),
                 0);
    cr_expect_eq(rivals.image, 40);
    cr_expect_eq(rivals.other, 10);
    cr_expect_not(fl_image_match_prefers_other(&rivals));
    cr_assert_eq(fl_image_match_compare(&scene.samples, &scene.layout, other, scene.image, &rivals),
                 0);
    cr_expect_eq(rivals.other, 40);
    cr_expect(fl_image_match_prefers_other(&rivals));
    cr_assert_eq(
        fl_image_match_compare(&scene.samples, &scene.layout, scene.image, scene.image, &rivals),
        0);
    cr_expect_eq(rivals.image + rivals.other, 0);
    fl_image_unref(other);
}
