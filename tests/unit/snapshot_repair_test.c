// SPDX-License-Identifier: Apache-2.0
//
// repair heals every image that needs a damaged frame, as far as some source has its pages.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "snapshot/io.h"
#include "tests/unit/repair_support.h"

TestSuite(repair, .init = repair_setup, .fini = repair_teardown, .timeout = 100);

Test(repair, nothing_is_done_while_nothing_is_known)
{
    damage_frame(1);
    struct fl_repair_result result = repair(space.memory, NULL, false);
    cr_assert_eq(result.bad_frames, 0);
    cr_assert_eq(result.images, 0);
    expect_unreadable("first");
}

Test(repair, all_images_are_healed_from_a_memory_file)
{
    struct fl_pack_result packed = pack("second", child, false);
    cr_assert_eq(packed.shared_pages, PAGES);
    damage_frame(1);
    damage_frame(4);
    cr_assert_eq(verify().bad, 4);
    cr_assert_eq(listed(), 2);
    struct fl_repair_result result = repair(NULL, NULL, false);
    cr_assert_eq(result.images, 2);
    cr_assert_eq(result.images_left, 2, "there is no source");
    cr_assert_eq(count_files(space.store, "packs"), 2, "and nothing to be stored");
    result = repair(space.memory, NULL, true);
    cr_assert_eq(result.images_left, 0, "a dry run says what would be");
    cr_assert_eq(count_files(space.store, "packs"), 2);
    expect_unreadable("first");
    result = repair(space.memory, NULL, false);
    cr_assert_eq(result.bad_frames, 2);
    cr_assert_eq(result.wanted_pages, 2 * FL_FRAME_PAGES);
    cr_assert_eq(result.found_pages, 2 * FL_FRAME_PAGES);
    cr_assert_eq(result.images_left, 0);
    expect_right("first", space.memory);
    expect_right("second", child);
    cr_assert_eq(count_files(space.store, "tmp"), 0);
    cr_assert_eq(repair(NULL, NULL, false).images, 0, "again: nothing is wrong any more");
    cr_assert_eq(verify().bad, 0);
    cr_assert_eq(pack("third", child, false).shared_pages, PAGES + 16, "healed pages are shared");
}

Test(repair, images_are_healed_from_another_store)
{
    char other[128];
    snprintf(other, sizeof(other), "%s/other", space.dir);
    cr_assert_eq(pack_file(other, "elsewhere", child, NULL), 0);
    damage_frame(5);
    cr_assert_eq(verify().bad, 2);
    cr_assert_eq(repair(NULL, other, false).images_left, 0);
    expect_right("first", space.memory);
}

// Another pack of the store has the pages as well: no source has to be named. (It was packed while
// the index was away, so it shares nothing.)
Test(repair, images_are_healed_from_the_store_itself)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/index", space.store);
    remove_tree(path);
    cr_assert_eq(pack("second", child, false).shared_pages, 0);
    damage_frame(2);
    cr_assert_eq(verify().bad, 2);
    cr_assert_eq(repair(NULL, NULL, false).images_left, 0);
    expect_right("first", space.memory);
    expect_right("second", child);
}

// The same pages are bad in two packs: one source heals both.
Test(repair, a_page_that_is_bad_in_two_places_is_healed_in_both)
{
    char path[256];
    char first[256];
    snprintf(path, sizeof(path), "%s/index", space.store);
    remove_tree(path);
    memcpy(first, pack_path, sizeof(first));
    rename(first, space.output); // so that the other one is the only one
    cr_assert_eq(pack("second", space.memory, false).shared_pages, 0);
    damage_frame_of_only_pack(2);
    rename(space.output, first);
    memcpy(pack_path, first, sizeof(first));
    damage_frame(2);
    cr_assert_eq(verify().bad, 4);
    struct fl_repair_result result = repair(space.memory, NULL, false);
    cr_assert_eq(result.wanted_pages, 2 * FL_FRAME_PAGES);
    cr_assert_eq(result.found_pages, 2 * FL_FRAME_PAGES);
    cr_assert_eq(result.images_left, 0);
    expect_right("first", space.memory);
    expect_right("second", space.memory);
}

// One byte is wrong: the other pages of the frame are in it still.
Test(repair, pages_that_are_right_within_a_bad_frame_are_saved)
{
    falsify_frame(1);
    cr_assert_eq(verify().bad, 2);
    struct fl_repair_result result = repair(NULL, NULL, false);
    cr_assert_eq(result.wanted_pages, FL_FRAME_PAGES);
    uint64_t saved = result.found_pages; // how many depends on what LZ4 copies from the byte
    cr_assert_geq(saved, 1);
    cr_assert_lt(saved, FL_FRAME_PAGES);
    cr_assert_eq(result.images_left, 1);
    result = repair(space.memory, NULL, false);
    cr_assert_eq(result.wanted_pages, FL_FRAME_PAGES - saved);
    cr_assert_eq(result.images_left, 0);
    expect_right("first", space.memory);
}

// Without a good table of identities it is not known what a page was: none is made up.
Test(repair, pages_whose_identity_is_not_known_stay_bad)
{
    damage_frame(0);
    damage_identities();
    verify();
    struct fl_repair_result result = repair(space.memory, NULL, false);
    cr_assert_eq(result.found_pages, 0);
    cr_assert_eq(result.images_left, 1);
    expect_unreadable("first");
}

Test(repair, who_has_the_image_open_keeps_it)
{
    struct fl_image *image;
    cr_assert_eq(open_image(space.store, "first", &image), 0);
    struct fl_image_id id = fl_image_id(image);
    damage_frame(1);
    cr_assert_eq(verify().bad, 2);
    cr_assert_eq(repair(space.memory, NULL, false).images_left, 0);
    cr_assert_eq(collect_store(space.store, false, NULL), 0);
    damage_frame(1); // the old pack's frame is right again
    cr_assert(image_is_file(image, space.memory));
    fl_image_unref(image);
    cr_assert_eq(open_image(space.store, "first", &image), 0);
    struct fl_image_id now = fl_image_id(image);
    cr_assert_eq(memcmp(&id, &now, sizeof(id)), 0, "its content is what it was");
    cr_assert(image_is_file(image, space.memory));
    fl_image_unref(image);
}

Test(repair, a_frame_that_is_right_again_is_forgotten)
{
    damage_frame(1);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(verify().bad, 2);
        cr_assert_eq(repair(NULL, NULL, false).bad_frames, 1);
        cr_assert_eq(listed(), 1, "once, however often it is found");
    }
    damage_frame(1);
    cr_assert_eq(repair(NULL, NULL, false).bad_frames, 0);
    cr_assert_eq(listed(), 0);
}

Test(repair, gc_forgets_the_frames_of_packs_that_go)
{
    damage_frame(1);
    cr_assert_eq(verify().bad, 2);
    cr_assert_eq(listed(), 1);
    cr_assert_eq(remove_image(space.store, "first"), 0);
    cr_assert_eq(collect_store(space.store, false, NULL), 0);
    cr_assert_eq(listed(), 0);
}

static void change_byte(const char *path, off_t at)
{
    uint8_t byte;
    FL_AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_eq(pread(fd, &byte, 1, at), 1);
    byte ^= 0xa5;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
}

// A damaged list is none: it is found again, and written anew.
Test(repair, a_damaged_list_is_an_empty_one)
{
    char path[160];
    struct stat st;
    list_path(path);
    damage_frame(1);
    cr_assert_eq(verify().bad, 2);
    cr_assert_eq(stat(path, &st), 0);
    for (off_t at = 0; at < st.st_size; at++) {
        change_byte(path, at);
        cr_assert_eq(repair(NULL, NULL, true).bad_frames, 0, "byte %ld", (long)at);
        cr_assert_eq(verify().bad, 2);
        cr_assert_eq(repair(NULL, NULL, true).bad_frames, 1, "byte %ld", (long)at);
    }
    for (off_t length = 0; length < st.st_size; length++) {
        cr_assert_eq(truncate(path, length), 0);
        cr_assert_eq(repair(NULL, NULL, true).bad_frames, 0, "length %ld", (long)length);
        cr_assert_eq(verify().bad, 2);
    }
}

Test(repair, an_image_that_cannot_be_opened_is_told_of_and_the_others_are_healed)
{
    char path[160];
    pack("second", child, false);
    snprintf(path, sizeof(path), "%s/images/second.img", space.store);
    change_byte(path, 100);
    damage_frame(1);
    verify();
    struct fl_repair_result result = repair(space.memory, NULL, false);
    cr_assert_eq(result.images, 2);
    cr_assert_eq(result.images_left, 1);
    expect_right("first", space.memory);
    cr_assert_eq(verify().unneeded_frames, 0, "the other image may need the frame");
}
