// SPDX-License-Identifier: Apache-2.0
//
// A damaged frame does not spread: packing reads what it shares, and heals what it can.
#include <criterion/criterion.h>
#include <stdio.h>

#include "snapshot/format.h"
#include "snapshot/io.h"
#include "tests/unit/repair_support.h"

TestSuite(share, .init = repair_setup, .fini = repair_teardown, .timeout = 100);

Test(share, a_damaged_frame_is_not_shared_and_its_image_is_healed)
{
    damage_frame(1);
    expect_unreadable("first");
    struct fl_pack_result result = pack("second", child, false);
    cr_assert_eq(result.bad_frames, 1);
    cr_assert_eq(result.shared_pages, PAGES - FL_FRAME_PAGES);
    cr_assert_eq(result.stored_pages, 16 + FL_FRAME_PAGES);
    cr_assert_eq(result.healed_images, 1);
    cr_assert_eq(result.damaged_images, 0);
    expect_right("second", child);
    expect_right("first", space.memory);
    struct fl_verify_result verified = verify();
    cr_assert_eq(verified.bad, 0);
    cr_assert_eq(verified.unneeded_frames, 1);
}

Test(share, a_frame_that_only_claims_to_be_right_is_not_shared)
{
    falsify_frame(2);
    struct fl_pack_result result = pack("second", child, false);
    cr_assert_eq(result.bad_frames, 1);
    cr_assert_eq(result.healed_images, 1);
    expect_right("second", child);
    expect_right("first", space.memory);
    cr_assert_eq(verify().bad, 0);
}

Test(share, every_frame_that_is_shared_is_read)
{
    for (uint32_t frame = 0; frame < FRAMES; frame++)
        damage_frame(frame);
    struct fl_pack_result result = pack("second", space.memory, false);
    cr_assert_eq(result.bad_frames, FRAMES);
    cr_assert_eq(result.shared_pages, 0);
    expect_right("second", space.memory);
    expect_right("first", space.memory);
}

// Without reading it cannot be seen; once it is known it is not shared even so.
Test(share, what_is_known_to_be_bad_is_not_shared_even_with_trust)
{
    damage_frame(3);
    cr_assert_eq(pack("trusting", space.memory, true).shared_pages, PAGES);
    expect_unreadable("trusting");
    cr_assert_eq(verify().bad, 3, "the frame and both images");
    cr_assert_eq(listed(), 1);
    struct fl_pack_result result = pack("warned", space.memory, true);
    cr_assert_eq(result.shared_pages, PAGES - FL_FRAME_PAGES);
    cr_assert_eq(result.healed_images, 2);
    expect_right("warned", space.memory);
    expect_right("trusting", space.memory);
    expect_right("first", space.memory);
}

// Of which the new content has half.
Test(share, content_heals_what_it_has_and_the_rest_is_told_of)
{
    char half[128];
    snprintf(half, sizeof(half), "%s/half", space.dir);
    cr_assert_eq(make_pages(half, 1, FL_FRAME_PAGES / 2), 0);
    damage_frame(0);
    struct fl_pack_result result = pack("half", half, false);
    cr_assert_eq(result.bad_frames, 1);
    cr_assert_eq(result.healed_images, 1);
    cr_assert_eq(result.damaged_images, 1);
    expect_unreadable("first");
    struct fl_repair_result repaired = repair(space.memory, NULL, false);
    cr_assert_eq(repaired.wanted_pages, FL_FRAME_PAGES / 2);
    cr_assert_eq(repaired.images_left, 0);
    expect_right("first", space.memory);
}
