// SPDX-License-Identifier: Apache-2.0
//
// What a capture brings forth is the memory of one moment, byte for byte, whatever the guest does
// meanwhile; and when it has ended, however, no page is protected, and no byte is lost.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/vm/vm.h"
#include "tests/unit/engine/ahead/capture_rig.h"

enum { MIB = 1 << 20 };

TestSuite(capture, .init = rig_needs, .fini = rig_stop, .timeout = 240);

static uint8_t *new_image(struct rig *rig)
{
    uint8_t *image = calloc(1, rig->bytes);
    cr_assert(image != NULL);
    return image;
}

// The first page that differs; -1: none does.
static long first_difference(const uint8_t *a, const uint8_t *b, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += PAGE) {
        if (memcmp(a + at, b + at, PAGE) != 0)
            return (long)(at / PAGE);
    }
    return -1;
}

// From READY to FROZEN with the writers paused; what the image must be then.
static bool freeze_paused(struct rig *rig, struct taken *taken, uint8_t *ret_expected)
{
    if (!rig_await(rig, taken, FL_CAPTURE_READY))
        return false;
    cr_assert(writers_pause(rig->writers));
    rig_freeze(rig, taken);
    bool frozen = rig_await(rig, taken, FL_CAPTURE_FROZEN);
    writers_image(rig->writers, &rig->memory, ret_expected);
    writers_resume(rig->writers);
    return frozen;
}

static void assert_captured(struct rig *rig, const struct taken *taken, uint8_t *image,
                            const uint8_t *expected)
{
    cr_assert_eq(rig_image(rig, taken, image), 0);
    long page = first_difference(image, expected, rig->bytes);
    cr_assert_eq(page, -1, "page %ld differs", page);
}

// One capture of a VM of which some is there, and some was given back.
static void capture_once(const struct rig_wish *wish, uint64_t flags)
{
    struct rig *rig = rig_start(wish);
    uint8_t *image = new_image(rig);
    uint8_t *expected = new_image(rig);
    cr_assert(writers_go_on(rig->writers, 3000));
    struct taken *taken = rig_begin(rig, flags);
    cr_assert(freeze_paused(rig, taken, expected), "%s", taken->reason);
    cr_assert(rig_await(rig, taken, FL_CAPTURE_COPIED), "%s", taken->reason);
    memcpy(image, rig->memory.data, rig->bytes);
    assert_captured(rig, taken, image, expected);
    cr_assert(rig_is_free(rig));
    cr_assert_eq(rig_protected(rig), 0);
    rig_drop(taken);
    cr_assert(rig_vm_ends(rig));
    free(image);
    free(expected);
}

Test(capture, is_the_memory_of_one_moment)
{
    capture_once(&(struct rig_wish){.bytes = 64 * MIB, .page_bytes = PAGE}, 0);
}

Test(capture, of_several_regions_and_removals)
{
    capture_once(
        &(struct rig_wish){
            .bytes = 64 * MIB, .page_bytes = PAGE, .regions = 3, .threads = 4, .removes = 8},
        0);
}
