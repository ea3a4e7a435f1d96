// SPDX-License-Identifier: Apache-2.0
//
// What is shared, what is declined, and that a wrong index makes no wrong image.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/dedup.h"
#include "snapshot/io.h"
#include "tests/unit/snapshot_support.h"

static struct workspace space;

static void setup(void)
{
    cr_assert_eq(workspace_make(&space), 0);
}

static void teardown(void)
{
    workspace_remove(&space);
}

TestSuite(dedup, .init = setup, .fini = teardown, .timeout = 100);

static void check_round_trip(const char *name)
{
    uint64_t bad;
    cr_assert_eq(unpack_file(space.store, name, space.output), 0);
    cr_assert(same_files(space.memory, space.output), "%s", name);
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
}

Test(dedup, second_image_of_the_same_memory_stores_nothing)
{
    struct fl_pack_result result;
    cr_assert_eq(make_pages(space.memory, 1000, 1500), 0);
    cr_assert_eq(pack_file(space.store, "first", space.memory, &result), 0);
    cr_assert_eq(result.stored_pages, 1500);
    cr_assert_eq(pack_file(space.store, "second", space.memory, &result), 0);
    cr_assert_eq(result.shared_pages, 1500);
    cr_assert_eq(result.stored_pages, 0);
    cr_assert_eq(result.stored_bytes, 0);
    cr_assert_eq(count_files(space.store, "packs"), 1);
    check_round_trip("second");
}

Test(dedup, pages_repeated_in_one_image_are_stored_once)
{
    struct fl_pack_result result;
    cr_assert_eq(make_pages(space.memory, 1, 16), 0);
    FL_AUTO_CLOSE int fd = open(space.memory, O_RDWR | O_CLOEXEC);
    char pages[16 * FL_PAGE_SIZE];
    cr_assert_eq(fl_pread_full(fd, pages, sizeof(pages), 0), 0);
    for (uint64_t i = 1; i < 200; i++)
        cr_assert_eq(fl_pwrite_full(fd, pages, sizeof(pages), i * sizeof(pages)), 0);
    cr_assert_eq(pack_file(space.store, "same", space.memory, &result), 0);
    cr_assert_eq(result.stored_pages, 16);
    cr_assert_eq(result.duplicate_pages, UINT64_C(199) * 16);
    check_round_trip("same");
}

// One range of 2 MiB made of pages from 64 frames: 10 of each of 32 and 6 of each of the others.
// The bound leaves the 32 that give most.
static void scatter(uint64_t first, int fd, uint64_t at)
{
    uint64_t page = at;
    for (uint64_t frame = 0; frame < 64; frame++) {
        uint64_t count = frame % 2 ? 10 : 6;
        for (uint64_t slot = 0; slot < count; slot++, page++) {
            char bytes[FL_PAGE_SIZE];
            fill_page(bytes, first + frame * FL_FRAME_PAGES + slot);
            cr_assert_eq(fl_pwrite_full(fd, bytes, sizeof(bytes), page * FL_PAGE_SIZE), 0);
        }
    }
    cr_assert_eq(page, at + FL_CHUNK_PAGES);
}

Test(dedup, scattered_hits_in_other_images_are_declined_beyond_the_bound)
{
    struct fl_pack_result result;
    struct fl_image_detail detail;
    cr_assert_eq(make_pages(space.memory, 5000, UINT64_C(64) * FL_FRAME_PAGES), 0);
    cr_assert_eq(pack_file(space.store, "base", space.memory, &result), 0);
    cr_assert_eq(make_pages(space.memory, 1, 0), 0);
    FL_AUTO_CLOSE int fd = open(space.memory, O_RDWR | O_CLOEXEC);
    scatter(5000, fd, 0);
    cr_assert_eq(pack_file(space.store, "scattered", space.memory, &result), 0);
    cr_assert_eq(FL_FOREIGN_FRAMES_MAX, 32);
    cr_assert_eq(result.shared_pages, 320);
    cr_assert_eq(result.declined_pages, 192);
    cr_assert_eq(result.stored_pages, 192);
    cr_assert_eq(inspect_image(space.store, "scattered", &detail), 0);
    cr_assert_eq(detail.range_frames_max, 32 + 192 / 16);
    cr_assert_eq(detail.info.declined_pages, 192);
    check_round_trip("scattered");
}

Test(dedup, scattered_hits_in_the_same_image_are_declined_beyond_the_bound)
{
    struct fl_pack_result result;
    struct fl_image_detail detail;
    cr_assert_eq(make_pages(space.memory, 5000, UINT64_C(64) * FL_FRAME_PAGES), 0);
    FL_AUTO_CLOSE int fd = open(space.memory, O_RDWR | O_CLOEXEC);
    scatter(5000, fd, UINT64_C(64) * FL_FRAME_PAGES);
    cr_assert_eq(pack_file(space.store, "one", space.memory, &result), 0);
    cr_assert_eq(result.duplicate_pages, 320);
    cr_assert_eq(result.declined_pages, 192);
    cr_assert_eq(inspect_image(space.store, "one", &detail), 0);
    cr_assert_eq(detail.range_frames_max, 44);
    check_round_trip("one");
}

// The table of what was stored has grown several times by then.
Test(dedup, what_was_stored_first_is_remembered)
{
    enum { MANY = 8000, AGAIN = 512 };
    struct fl_pack_result result;
    cr_assert_eq(make_pages(space.memory, 1, MANY), 0);
    FL_AUTO_CLOSE int fd = open(space.memory, O_RDWR | O_CLOEXEC);
    for (uint64_t page = 0; page < AGAIN; page++) {
        char bytes[FL_PAGE_SIZE];
        fill_page(bytes, 1 + page);
        cr_assert_eq(fl_pwrite_full(fd, bytes, sizeof(bytes), (MANY + page) * FL_PAGE_SIZE), 0);
    }
    cr_assert_eq(pack_file(space.store, "one", space.memory, &result), 0);
    // A bucket that is full forgets: that is rare.
    cr_assert_geq(result.duplicate_pages, AGAIN - AGAIN / 50);
}

Test(dedup, entries_of_a_pack_that_is_gone_are_misses)
{
    struct fl_pack_result result;
    char pack[256];
    cr_assert_eq(make_pages(space.memory, 1, 700), 0);
    cr_assert_eq(pack_file(space.store, "first", space.memory, &result), 0);
    cr_assert_eq(remove_image(space.store, "first"), 0);
    cr_assert_eq(only_file(space.store, "packs", pack, sizeof(pack)), 0);
    int r = unlink(pack);
    cr_assert_eq(r, 0);
    cr_assert_eq(pack_file(space.store, "again", space.memory, &result), 0);
    cr_assert_eq(result.shared_pages, 0);
    cr_assert_eq(result.stored_pages, 700);
    check_round_trip("again");
}

// Makes every entry of the index point at the wrong slot.
static void spoil_index(void)
{
    char dir[128];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi pages;
    MDB_cursor *cursor;
    MDB_val key;
    MDB_val value;
    snprintf(dir, sizeof(dir), "%s/index", space.store);
    cr_assert_eq(mdb_env_create(&env), 0);
    mdb_env_set_maxdbs(env, 2);
    cr_assert_eq(mdb_env_open(env, dir, 0, 0600), 0);
    cr_assert_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
    cr_assert_eq(mdb_dbi_open(txn, "pages", 0, &pages), 0);
    cr_assert_eq(mdb_cursor_open(txn, pages, &cursor), 0);
    int changed = 0;
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
        struct fl_disk_place place;
        memcpy(&place, value.mv_data, sizeof(place));
        place.slot = (uint16_t)((place.slot + (changed % 2 ? 1 : 300)) % 400);
        value.mv_data = &place;
        cr_assert_eq(mdb_cursor_put(cursor, &key, &value, MDB_CURRENT), 0);
        changed++;
    }
    cr_assert_gt(changed, 0);
    mdb_cursor_close(cursor);
    cr_assert_eq(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

Test(dedup, an_index_that_lies_makes_no_wrong_image)
{
    struct fl_pack_result result;
    cr_assert_eq(make_pages(space.memory, 1, 300), 0);
    cr_assert_eq(pack_file(space.store, "first", space.memory, &result), 0);
    spoil_index();
    cr_assert_eq(pack_file(space.store, "second", space.memory, &result), 0);
    cr_assert_eq(result.shared_pages, 0);
    cr_assert_eq(result.stored_pages, 300);
    check_round_trip("second");
}
