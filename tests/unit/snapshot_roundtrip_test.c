// SPDX-License-Identifier: Apache-2.0
//
// What goes into the store comes out of it, bit for bit, whatever it is.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/frame.h"
#include "snapshot/identity.h"
#include "snapshot/image_writer.h"
#include "snapshot/io.h"
#include "snapshot/pack_writer.h"
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

TestSuite(roundtrip, .init = setup, .fini = teardown, .timeout = 170);

static void check_counts(const struct fl_pack_result *result, uint64_t bytes)
{
    cr_assert_eq(result->input_bytes, bytes);
    cr_assert_eq(result->pages, (bytes + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE);
    cr_assert_eq(result->pages, result->zero_pages + result->duplicate_pages +
                                    result->shared_pages + result->stored_pages);
    cr_assert_leq(result->declined_pages, result->stored_pages);
    cr_assert_leq(result->data_bytes, bytes);
}

static void check_image(const char *name, const char *path)
{
    struct fl_reader *reader;
    struct fl_image *image;
    cr_assert_eq(fl_reader_open(space.store, &reader), 0);
    cr_assert_eq(fl_image_open(reader, name, &image), 0);
    fl_reader_close(reader); // the image outlives it
    cr_assert(image_is_file(image, path), "image %s", name);
    cr_assert_str_eq(fl_image_name(image), name);
    cr_assert_not(fl_image_is_raw(image));
    fl_image_unref(image);
    cr_assert_eq(unpack_file(space.store, name, space.output), 0);
    cr_assert(same_files(path, space.output), "unpacked %s", name);
}

// It was read just now, and is in the page cache. Not all file systems can say so.
static void check_read_now(const struct fl_image *image)
{
    static uint8_t now[40 * FL_PAGE_SIZE];
    static uint8_t frame[FL_FRAME_PAGES * FL_PAGE_SIZE];
    uint64_t whole = fl_image_bytes(image) / FL_PAGE_SIZE;
    uint64_t first = whole > 35 ? whole - 35 : 0;
    uint32_t got = fl_image_read_now(image, first, 40, now);
    cr_assert_leq(got, whole - first, "no page that the file has in part");
    for (uint32_t i = 0; i < got; i++) {
        struct fl_run run = fl_image_run(image, first + i, 1);
        cr_assert(run.zero || fl_frame_read(image, run.id, frame) == 0);
        const uint8_t *page = now + (size_t)i * FL_PAGE_SIZE;
        if (run.zero)
            cr_assert(fl_page_is_zero(page));
        else
            cr_assert_arr_eq(page, frame + (size_t)run.slot * FL_PAGE_SIZE, FL_PAGE_SIZE);
    }
}

static void check_raw(const char *path)
{
    struct fl_image *image;
    cr_assert_eq(fl_image_open_raw(path, &image), 0);
    cr_assert(image_is_file(image, path), "raw");
    cr_assert(fl_image_is_raw(image));
    check_read_now(image);
    fl_image_unref(image);
}

static void round_trip(const char *name, uint64_t bytes, uint64_t *state)
{
    struct fl_pack_result result;
    struct fl_image_detail detail;
    cr_assert_eq(make_memory(space.memory, bytes, state), 0);
    cr_assert_eq(pack_file(space.store, name, space.memory, &result), 0);
    check_counts(&result, bytes);
    check_image(name, space.memory);
    check_raw(space.memory);
    cr_assert_eq(inspect_image(space.store, name, &detail), 0);
    cr_assert_leq(detail.range_frames_max, 64, "fragmentation is bounded");
    cr_assert_eq(detail.info.bytes, bytes);
}

Test(roundtrip, sizes_around_page_frame_and_chunk)
{
    static const uint64_t around[] = {FL_PAGE_SIZE, FL_PAGE_SIZE * FL_FRAME_PAGES, 2 << 20,
                                      4 << 20};
    uint64_t state = test_seed();
    uint64_t bad;
    char name[32];
    for (size_t i = 0; i < sizeof(around) / sizeof(around[0]); i++) {
        for (uint64_t delta = 0; delta < 3; delta++) {
            snprintf(name, sizeof(name), "i%zu-%d", i, (int)delta);
            round_trip(name, around[i] + delta - 1, &state);
        }
    }
    round_trip("one-byte", 1, &state);
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
}

Test(roundtrip, random_files_in_one_store)
{
    uint64_t state = test_seed();
    uint64_t bad;
    char name[32];
    for (int i = 0; i < 16; i++) {
        snprintf(name, sizeof(name), "image.%d", i);
        round_trip(name, test_random(&state) % (6 << 20) + 1, &state);
    }
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
    cr_assert_eq(count_files(space.store, "tmp"), 0);
}

Test(roundtrip, nothing_but_a_hole)
{
    struct fl_pack_result result;
    const uint64_t bytes = (UINT64_C(5) << 30) + 123;
    int r = 0;
    cr_assert_eq(make_memory(space.memory, 0, &(uint64_t){1}), 0);
    r = truncate(space.memory, (off_t)bytes);
    cr_assert_eq(r, 0);
    cr_assert_eq(pack_file(space.store, "hole", space.memory, &result), 0);
    cr_assert_eq(result.zero_pages, result.pages);
    cr_assert_eq(result.data_bytes, 0);
    cr_assert_eq(result.pack_id, 0);
    cr_assert_eq(count_files(space.store, "packs"), 0);
    cr_assert_eq(unpack_file(space.store, "hole", space.output), 0);
    struct fl_image *image;
    cr_assert_eq(fl_image_open_raw(space.output, &image), 0);
    cr_assert_eq(fl_image_bytes(image), bytes);
    cr_assert_eq(fl_image_run(image, 0, UINT32_MAX).pages, fl_image_pages(image));
    fl_image_unref(image);
}

Test(roundtrip, same_pack_whatever_the_threads)
{
    uint64_t state = test_seed();
    struct fl_image_detail one;
    struct fl_image_detail many;
    struct fl_store *store;
    struct fl_pack_result result;
    cr_assert_eq(make_memory(space.memory, 9 << 20, &state), 0);
    for (unsigned threads = 1; threads <= 7; threads += 6) {
        struct fl_pack_options options = {
            .name = threads == 1 ? "one" : "many", .path = space.memory, .threads = threads};
        char dir[128];
        snprintf(dir, sizeof(dir), "%s-%u", space.store, threads);
        cr_assert_eq(fl_store_open(dir, true, &store, NULL), 0);
        cr_assert_eq(fl_store_pack(store, &options, &result, NULL), 0);
        cr_assert_eq(fl_store_inspect(store, options.name, threads == 1 ? &one : &many, NULL), 0);
        fl_store_close(store);
    }
    cr_assert_eq(one.stored_bytes, many.stored_bytes);
    cr_assert_eq(one.frames, many.frames);
    cr_assert_eq(one.range_frames, many.range_frames);
    cr_assert_arr_eq(one.info.content_id, many.info.content_id, sizeof(one.info.content_id));
}

Test(roundtrip, identity_is_sha256)
{
    struct fl_hasher *hasher;
    struct fl_identity identity;
    char page[FL_PAGE_SIZE] = {0};
    cr_assert_eq(fl_hasher_new(&hasher), 0);
    cr_assert_eq(fl_hash_page(hasher, page, &identity), 0);
    cr_assert_arr_eq(&identity, &fl_zero_identity, sizeof(identity));
    cr_assert(fl_page_is_zero(page));
    page[FL_PAGE_SIZE - 1] = 1;
    cr_assert_not(fl_page_is_zero(page));
    fl_hasher_free(hasher);
}

static void append_frame(struct fl_pack_writer *pack, const char *bytes, uint32_t pages)
{
    static struct fl_identity identities[FL_FRAME_PAGES_MAX];
    struct fl_disk_frame frame;
    struct fl_hasher *hasher;
    FL_AUTO_FREE char *stored = malloc(fl_frame_bound(pages));
    fl_frame_encode(bytes, pages, stored, &frame);
    cr_assert_eq(fl_hasher_new(&hasher), 0);
    for (uint32_t i = 0; i < pages; i++)
        cr_assert_eq(fl_hash_page(hasher, bytes + (size_t)i * FL_PAGE_SIZE, &identities[i]), 0);
    fl_hasher_free(hasher);
    cr_assert_eq(fl_pack_writer_append(pack, &frame, 1, stored, frame.stored, identities), 0);
}

static int open_part(const char *part)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", space.store, part);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    return fd;
}

// The packer makes frames of 16 pages; the format allows 512. Slot 511 of a frame and slot 0 of the
// next are neighbours in the map and not one run.
Test(roundtrip, frames_of_512_pages)
{
    enum { PAGES = 2 * FL_FRAME_PAGES_MAX };
    static char bytes[PAGES * FL_PAGE_SIZE];
    static uint64_t entries[PAGES];
    struct fl_disk_image_header header = {
        .packs = 1, .bytes = sizeof(bytes), .pages = PAGES, .name = "large"};
    struct fl_store *store;
    struct fl_pack_writer *pack;
    struct fl_image_writer *writer;
    uint64_t written;
    cr_assert_eq(fl_store_open(space.store, true, &store, NULL), 0);
    fl_store_close(store);
    FL_AUTO_CLOSE int tmp = open_part("tmp");
    FL_AUTO_CLOSE int packs = open_part("packs");
    FL_AUTO_CLOSE int images = open_part("images");
    cr_assert_eq(make_pages(space.memory, 1, PAGES), 0);
    for (uint32_t i = 0; i < PAGES; i++) {
        fill_page(bytes + (size_t)i * FL_PAGE_SIZE, 1 + (uint64_t)i);
        entries[i] = fl_entry(0, i / FL_FRAME_PAGES_MAX, i % FL_FRAME_PAGES_MAX);
    }
    cr_assert_eq(fl_pack_writer_new(tmp, &pack), 0);
    append_frame(pack, bytes, FL_FRAME_PAGES_MAX);
    append_frame(pack, bytes + sizeof(bytes) / 2, FL_FRAME_PAGES_MAX);
    const uint64_t id = fl_pack_writer_id(pack);
    cr_assert_eq(fl_pack_writer_publish(pack, packs, &written), 0);
    fl_pack_writer_free(pack);
    cr_assert_eq(fl_image_writer_new(tmp, &writer), 0);
    cr_assert_eq(fl_image_writer_append(writer, entries, PAGES), 0);
    cr_assert_eq(fl_image_writer_publish(writer, &header, &id, NULL, images, false, &written), 0);
    fl_image_writer_free(writer);
    check_image("large", space.memory);
    struct fl_reader *reader;
    struct fl_image *image;
    cr_assert_eq(fl_reader_open(space.store, &reader), 0);
    cr_assert_eq(fl_image_open(reader, "large", &image), 0);
    cr_assert_eq(fl_image_run(image, 3, 4096).pages, FL_FRAME_PAGES_MAX - 3);
    fl_image_unref(image);
    fl_reader_close(reader);
}
