// SPDX-License-Identifier: Apache-2.0
//
// A damaged frame stays where it is: packing does not share it, and repair, or the content that is
// packed again, heals every image that needs it.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "snapshot/io.h"
#include "tests/unit/snapshot_sign.h"
#include "tests/unit/snapshot_support.h"

enum { PAGES = 96, FRAMES = PAGES / FL_FRAME_PAGES };

static struct workspace space;
static char child[96];      // a memory file with the pages of space.memory and 16 more
static char pack_path[256]; // of image "first"

static void setup(void)
{
    cr_assert_eq(workspace_make(&space), 0);
    snprintf(child, sizeof(child), "%s/child", space.dir);
    cr_assert_eq(make_pages(space.memory, 1, PAGES), 0);
    cr_assert_eq(make_pages(child, 1, PAGES + 16), 0);
    cr_assert_eq(pack_file(space.store, "first", space.memory, NULL), 0);
    cr_assert_eq(only_file(space.store, "packs", pack_path, sizeof(pack_path)), 0);
}

static void teardown(void)
{
    workspace_remove(&space);
}

TestSuite(repair, .init = setup, .fini = teardown, .timeout = 100);

// --- damage ---

struct pack_file {
    int fd;
    uint64_t bytes;
    struct fl_disk_pack_footer footer;
};

static struct pack_file open_pack_file(void)
{
    struct pack_file file = {.fd = open(pack_path, O_RDWR | O_CLOEXEC)};
    cr_assert_geq(file.fd, 0);
    cr_assert_eq(fl_file_size(file.fd, &file.bytes), 0);
    cr_assert_eq(
        fl_pread_full(file.fd, &file.footer, sizeof(file.footer), file.bytes - sizeof(file.footer)),
        0);
    return file;
}

static uint64_t table_at(const struct pack_file *file, uint32_t frame)
{
    return file->footer.table_offset + frame * sizeof(struct fl_disk_frame);
}

static struct fl_disk_frame read_entry(const struct pack_file *file, uint32_t frame)
{
    struct fl_disk_frame entry;
    cr_assert_eq(fl_pread_full(file->fd, &entry, sizeof(entry), table_at(file, frame)), 0);
    return entry;
}

static void flip(int fd, uint64_t at, uint64_t count)
{
    for (uint64_t i = at; i < at + count; i++) {
        uint8_t byte;
        cr_assert_eq(fl_pread_full(fd, &byte, 1, i), 0);
        byte = (uint8_t)~byte;
        cr_assert_eq(fl_pwrite_full(fd, &byte, 1, i), 0);
    }
}

// All of it: nothing is left to be saved.
static void damage_frame(uint32_t frame)
{
    struct pack_file file = open_pack_file();
    struct fl_disk_frame entry = read_entry(&file, frame);
    flip(file.fd, entry.offset, entry.stored);
    close(file.fd);
}

static void damage_frame_of_only_pack(uint32_t frame)
{
    cr_assert_eq(only_file(space.store, "packs", pack_path, sizeof(pack_path)), 0);
    damage_frame(frame);
}

static void seal_table(struct pack_file *file)
{
    uint8_t *bytes = malloc(file->bytes);
    cr_assert(bytes);
    cr_assert_eq(fl_pread_full(file->fd, bytes, file->bytes, 0), 0);
    sign_pack(bytes, file->bytes);
    cr_assert_eq(fl_pwrite_full(file->fd, bytes, file->bytes, 0), 0);
    free(bytes);
}

// The frame says that it is right, but a literal byte of a page is another one.
static void falsify_frame(uint32_t frame)
{
    uint8_t stored[FL_FRAME_PAGES * FL_PAGE_SIZE];
    struct pack_file file = open_pack_file();
    struct fl_disk_frame entry = read_entry(&file, frame);
    flip(file.fd, entry.offset + 1000, 1);
    cr_assert_eq(fl_pread_full(file.fd, stored, entry.stored, entry.offset), 0);
    entry.checksum = fl_checksum(stored, entry.stored);
    cr_assert_eq(fl_pwrite_full(file.fd, &entry, sizeof(entry), table_at(&file, frame)), 0);
    seal_table(&file);
    close(file.fd);
}

static void damage_identities(void)
{
    struct pack_file file = open_pack_file();
    flip(file.fd, table_at(&file, file.footer.frames), 1);
    close(file.fd);
}

// --- verbs ---

static struct fl_pack_result pack(const char *name, const char *memory, bool trust)
{
    struct fl_store *store = NULL;
    struct fl_error error = {""};
    struct fl_pack_result result;
    struct fl_pack_options options = {.name = name, .path = memory, .trust_store = trust};
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0, "%s", error.text);
    cr_assert_eq(fl_store_pack(store, &options, &result, &error), 0, "%s", error.text);
    fl_store_close(store);
    return result;
}

static struct fl_repair_result repair(const char *memory, const char *other, bool dry_run)
{
    struct fl_store *store = NULL;
    struct fl_error error = {""};
    struct fl_repair_result result;
    struct fl_repair_options options = {
        .memory_path = memory, .store_dir = other, .dry_run = dry_run};
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0, "%s", error.text);
    cr_assert_eq(fl_store_repair(store, &options, &result, &error), 0, "%s", error.text);
    fl_store_close(store);
    return result;
}

static void ignore_bad(void *arg, const char *object, const char *problem)
{
    (void)arg;
    (void)object;
    (void)problem;
}

static struct fl_verify_result verify(void)
{
    struct fl_store *store = NULL;
    struct fl_error error = {""};
    struct fl_verify_result result;
    struct fl_verify_options options = {.bad = ignore_bad};
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0, "%s", error.text);
    cr_assert_eq(fl_store_verify(store, &options, &result, &error), 0, "%s", error.text);
    fl_store_close(store);
    return result;
}

static void expect_right(const char *name, const char *memory)
{
    cr_assert_eq(unpack_file(space.store, name, space.output), 0, "%s", name);
    cr_assert(same_files(memory, space.output), "%s", name);
}

static void expect_unreadable(const char *name)
{
    cr_assert_lt(unpack_file(space.store, name, space.output), 0, "%s", name);
}

static void list_path(char path[160])
{
    snprintf(path, 160, "%s/%s", space.store, FL_BAD_NAME);
}

static uint64_t listed(void)
{
    char path[160];
    struct stat st;
    list_path(path);
    if (stat(path, &st) < 0)
        return 0;
    return ((uint64_t)st.st_size - sizeof(struct fl_disk_bad_header)) /
           sizeof(struct fl_disk_bad_frame);
}

// --- packing ---

Test(repair, a_damaged_frame_is_not_shared_and_its_image_is_healed)
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

Test(repair, a_frame_that_only_claims_to_be_right_is_not_shared)
{
    falsify_frame(2);
    struct fl_pack_result result = pack("second", child, false);
    cr_assert_eq(result.bad_frames, 1);
    cr_assert_eq(result.healed_images, 1);
    expect_right("second", child);
    expect_right("first", space.memory);
    cr_assert_eq(verify().bad, 0);
}

Test(repair, every_frame_that_is_shared_is_read)
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
Test(repair, what_is_known_to_be_bad_is_not_shared_even_with_trust)
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
Test(repair, content_heals_what_it_has_and_the_rest_is_told_of)
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

// --- repairing ---

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
    cr_assert_eq(verify().bad, 2);
    cr_assert_eq(listed(), 1);
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
