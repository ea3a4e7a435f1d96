// SPDX-License-Identifier: Apache-2.0
//
// Maps and frame tables that are read when they are needed: what is not known yet, what damage to a
// piece costs, what a large image with little in it costs, and files of version 1.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "snapshot/io.h"
#include "tests/unit/snapshot_sign.h"
#include "tests/unit/snapshot_support.h"

static struct workspace space;
static char image_path[256];
static char pack_path[256];

static void setup(void)
{
    cr_assert_eq(workspace_make(&space), 0);
}

static void teardown(void)
{
    workspace_remove(&space);
}

TestSuite(lazy, .init = setup, .fini = teardown, .timeout = 170);

enum { PIECES = 5, RUN = 40 };

static void put_page(int fd, uint64_t at, uint64_t bytes)
{
    char page[FL_PAGE_SIZE];
    uint64_t left = bytes - at * FL_PAGE_SIZE;
    fill_page(page, at + 1);
    cr_assert_eq(
        fl_pwrite_full(fd, page, left < sizeof(page) ? left : sizeof(page), at * FL_PAGE_SIZE), 0);
}

// A few pages at the beginning and at the end of each piece of the map; none in the second piece.
static void make_sparse(uint64_t bytes)
{
    uint64_t pages = (bytes + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE;
    FL_AUTO_CLOSE int fd = open(space.memory, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    int r = ftruncate(fd, (off_t)bytes);
    cr_assert_eq(r, 0);
    for (uint64_t first = 0; first < pages; first += FL_PIECE_ENTRIES) {
        uint64_t end = first + FL_PIECE_ENTRIES < pages ? first + FL_PIECE_ENTRIES : pages;
        for (uint64_t i = 0; first != FL_PIECE_ENTRIES && i < RUN; i++) {
            put_page(fd, first + i, bytes);
            put_page(fd, end - 1 - i, bytes);
        }
    }
}

static void pack_memory(void)
{
    struct fl_pack_result result;
    cr_assert_eq(pack_file(space.store, "image", space.memory, &result), 0);
    cr_assert_eq(only_file(space.store, "packs", pack_path, sizeof(pack_path)), 0);
    snprintf(image_path, sizeof(image_path), "%s/images/image.img", space.store);
}

static struct fl_image *open_lazy(void)
{
    struct fl_reader *reader;
    struct fl_image *image = NULL;
    cr_assert_eq(fl_reader_open(space.store, &reader), 0);
    cr_assert_eq(fl_image_open_lazy(reader, "image", &image), 0);
    fl_reader_close(reader);
    return image;
}

static uint64_t piece_page(unsigned piece)
{
    return (uint64_t)piece * FL_PIECE_ENTRIES;
}

Test(lazy, a_page_is_not_known_before_its_piece_was_read)
{
    uint8_t buf[FL_PAGE_SIZE];
    make_sparse((PIECES - 1) * piece_page(1) * FL_PAGE_SIZE + 12345 * 4);
    pack_memory();
    struct fl_image *image = open_lazy();
    for (unsigned piece = 0; piece < PIECES; piece++) {
        struct fl_run run = fl_image_run(image, piece_page(piece), 64);
        if (piece == 1) { // has nothing: that is known, and what follows is not
            cr_assert(run.zero && !run.unread);
            run = fl_image_run(image, piece_page(1), UINT32_MAX);
            cr_assert_eq(run.pages, FL_PIECE_ENTRIES);
            continue;
        }
        cr_assert(run.unread && !run.zero);
        cr_assert_eq(run.pages, 1);
        struct fl_run last = fl_image_run(image, piece_page(piece) + 11, 64);
        cr_assert(last.unread && last.id.pack == run.id.pack && last.id.frame == run.id.frame);
        cr_assert_eq(fl_frame_pages(image, run.id), 1);
        struct fl_frame_place place;
        cr_assert_lt(fl_frame_place(image, run.id, &place), 0);
        cr_assert_eq(fl_frame_read(image, run.id, buf), 0);
        run = fl_image_run(image, piece_page(piece), 64);
        cr_assert(!run.unread && !run.zero);
        cr_assert_lt(fl_frame_pages(image, (struct fl_frame_id){run.id.pack + 1, 0}), 1);
    }
    cr_assert(image_is_file(image, space.memory));
    fl_image_unref(image);
}

// A name of a piece is that of one open image: what a cache has under it is never another's.
Test(lazy, pieces_of_two_images_are_different_frames)
{
    make_sparse(piece_page(2) * FL_PAGE_SIZE);
    pack_memory();
    struct fl_image *left = open_lazy();
    struct fl_image *right = open_lazy();
    struct fl_run a = fl_image_run(left, 0, 1);
    struct fl_run b = fl_image_run(right, 0, 1);
    cr_assert(a.unread && b.unread);
    cr_assert_neq(a.id.pack, b.id.pack);
    cr_assert_eq(fl_frame_pages(left, b.id), 0);
    fl_image_unref(left);
    fl_image_unref(right);
}

struct bytes {
    uint8_t *at;
    size_t len;
};

static struct bytes load(const char *path)
{
    struct stat st;
    struct bytes bytes;
    FL_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fstat(fd, &st), 0);
    bytes.len = (size_t)st.st_size;
    bytes.at = malloc(bytes.len);
    cr_assert_eq(fl_pread_full(fd, bytes.at, bytes.len, 0), 0);
    return bytes;
}

static void save(const char *path, const uint8_t *bytes, size_t len)
{
    FL_AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fl_pwrite_full(fd, bytes, len, 0), 0);
}

// The pieces that can be read, as bits; what they have is right.
static unsigned good_pieces(void)
{
    static uint8_t frame[FL_FRAME_PAGES_MAX * FL_PAGE_SIZE];
    uint8_t page[FL_PAGE_SIZE];
    struct fl_image *image = open_lazy();
    unsigned good = 0;
    for (unsigned piece = 0; piece < PIECES; piece++) {
        int r = fl_image_read_map(image, piece_page(piece), 1);
        cr_assert(r == 0 || r == -EBADMSG);
        struct fl_run run = fl_image_run(image, piece_page(piece), 1);
        cr_assert_eq(run.unread, r != 0);
        good |= r == 0 ? 1U << piece : 0;
        if (r != 0 || run.zero)
            continue;
        cr_assert_eq(fl_frame_read(image, run.id, frame), 0);
        fill_page(page, piece_page(piece) + 1);
        cr_assert_eq(memcmp(frame + run.slot * FL_PAGE_SIZE, page, sizeof(page)), 0);
    }
    fl_image_unref(image);
    return good;
}

Test(lazy, damage_to_a_piece_of_the_map_costs_what_it_has)
{
    make_sparse(PIECES * piece_page(1) * FL_PAGE_SIZE);
    pack_memory();
    struct bytes image = load(image_path);
    static const unsigned stored[] = {0, 2, 3, 4};
    const unsigned all = (1U << PIECES) - 1;
    cr_assert_eq(good_pieces(), all);
    for (unsigned i = 0; i < 4; i++) {
        size_t length = FL_PIECE_ENTRIES * sizeof(uint64_t);
        for (size_t at = 0; at < length; at += 4099) {
            uint8_t *byte = image.at + sizeof(struct fl_disk_image_header) + i * length + at;
            uint64_t bad = 0;
            *byte ^= 4;
            save(image_path, image.at, image.len);
            cr_assert_eq(good_pieces(), all & ~(1U << stored[i]), "byte %zu of piece %u", at, i);
            struct fl_image *whole;
            cr_assert_eq(open_image(space.store, "image", &whole), -EBADMSG);
            cr_assert(at > 0 || (verify_store(space.store, &bad) == 0 && bad > 0));
            *byte ^= 4;
        }
    }
    free(image.at);
}

// The checksums are right: a page would be looked up in another's piece.
Test(lazy, pieces_of_a_map_come_in_order_and_once)
{
    // Of the two pieces from `at` on: their numbers. The last one is of a piece that is none.
    static const struct {
        unsigned at, number[2];
    } lies[] = {{0, {2, 0}}, {0, {0, 0}}, {2, {3, PIECES + 1}}};
    make_sparse(PIECES * piece_page(1) * FL_PAGE_SIZE);
    pack_memory();
    struct bytes image = load(image_path);
    struct bytes right = load(image_path);
    size_t list = image.len - sizeof(uint64_t) - (PIECES - 1) * sizeof(struct fl_disk_map_piece);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct fl_reader *reader;
        struct fl_image *opened;
        for (unsigned k = 0; k < 2; k++) {
            uint64_t number = lies[i].number[k];
            memcpy(image.at + list + (lies[i].at + k) * sizeof(struct fl_disk_map_piece), &number,
                   sizeof(number));
        }
        sign_image(image.at, image.len);
        save(image_path, image.at, image.len);
        cr_assert_eq(fl_reader_open(space.store, &reader), 0);
        cr_assert_eq(fl_image_open_lazy(reader, "image", &opened), -EBADMSG, "lie %zu", i);
        fl_reader_close(reader);
        memcpy(image.at, right.at, right.len);
    }
    free(image.at);
    free(right.at);
}

// More frames than a piece of the table has: the second half of the memory is in its second piece.
static void make_long_table(void)
{
    cr_assert_eq(make_pages(space.memory, 1, (uint64_t)2 * FL_PIECE_FRAMES * FL_FRAME_PAGES), 0);
    pack_memory();
}

Test(lazy, damage_to_a_piece_of_a_frame_table_costs_what_it_has)
{
    struct fl_disk_pack_footer footer;
    make_long_table();
    struct bytes pack = load(pack_path);
    memcpy(&footer, pack.at + pack.len - sizeof(footer), sizeof(footer));
    cr_assert_eq(footer.frames, 2 * FL_PIECE_FRAMES);
    for (unsigned half = 0; half < 2; half++) {
        size_t at =
            footer.table_offset + (half * FL_PIECE_FRAMES + 77) * sizeof(struct fl_disk_frame) + 3;
        pack.at[at] ^= 1;
        save(pack_path, pack.at, pack.len);
        struct fl_image *image = open_lazy();
        uint64_t pages = fl_image_pages(image);
        uint64_t bad = 0;
        cr_assert_eq(fl_image_read_map(image, 0, pages / 2), half == 0 ? -EBADMSG : 0);
        cr_assert_eq(fl_image_read_map(image, pages / 2, pages / 2), half == 1 ? -EBADMSG : 0);
        fl_image_unref(image);
        cr_assert(verify_store(space.store, &bad) == 0 && bad > 0);
        pack.at[at] ^= 1;
    }
    free(pack.at);
}

// The checksums are right: pages that are counted wrongly would be given the identities of others.
Test(lazy, pieces_of_a_frame_table_begin_where_the_one_before_ends)
{
    struct fl_disk_pack_footer footer;
    struct fl_disk_frame_piece piece;
    make_long_table();
    struct bytes pack = load(pack_path);
    memcpy(&footer, pack.at + pack.len - sizeof(footer), sizeof(footer));
    uint8_t *second = pack.at + pack.len - sizeof(footer) - sizeof(piece);
    memcpy(&piece, second, sizeof(piece));
    piece.first_page++;
    memcpy(second, &piece, sizeof(piece));
    sign_pack(pack.at, pack.len);
    save(pack_path, pack.at, pack.len);
    struct fl_image *image = open_lazy();
    uint64_t pages = fl_image_pages(image);
    cr_assert_eq(fl_image_read_map(image, 0, pages / 2), -EBADMSG);
    cr_assert_eq(fl_image_read_map(image, pages / 2, pages / 2), -EBADMSG);
    fl_image_unref(image);
    free(pack.at);
}

static void *read_backwards(void *argument)
{
    const struct fl_image *image = argument;
    for (uint64_t page = fl_image_pages(image); page > 0; page -= page % 4096 ? page % 4096 : 4096)
        cr_assert_eq(fl_image_read_map(image, page - 1, 1), 0);
    return NULL;
}

Test(lazy, threads_read_the_same_pieces_at_the_same_time)
{
    pthread_t thread[3];
    make_long_table();
    for (unsigned round = 0; round < 20; round++) {
        struct fl_image *image = open_lazy();
        for (unsigned i = 0; i < 3; i++)
            cr_assert_eq(pthread_create(&thread[i], NULL, read_backwards, image), 0);
        cr_assert_eq(fl_image_read_map(image, 0, fl_image_pages(image)), 0);
        for (unsigned i = 0; i < 3; i++)
            pthread_join(thread[i], NULL);
        cr_assert(round > 0 || image_is_file(image, space.memory));
        fl_image_unref(image);
    }
}

Test(lazy, files_of_version_1_are_read)
{
    size_t length;
    uint64_t bad = 1;
    struct fl_image_detail detail;
    make_sparse(PIECES * piece_page(1) * FL_PAGE_SIZE - 5 * FL_PAGE_SIZE - 100);
    pack_memory();
    for (unsigned old = 1; old < 4; old++) { // the image, the pack, both
        struct bytes image = load(image_path);
        struct bytes pack = load(pack_path);
        uint8_t *image_1 = image_version_1(image.at, image.len, &length);
        if (old & 1)
            save(image_path, image_1, length);
        uint8_t *pack_1 = pack_version_1(pack.at, pack.len, &length);
        if (old & 2)
            save(pack_path, pack_1, length);
        struct fl_image *opened = open_lazy();
        cr_assert_eq(fl_image_run(opened, 0, 1).unread, !(old & 1));
        cr_assert_eq(fl_image_read_map(opened, 0, UINT64_MAX), 0);
        cr_assert(image_is_file(opened, space.memory));
        fl_image_unref(opened);
        cr_assert_eq(verify_store(space.store, &bad), 0);
        cr_assert_eq(bad, 0);
        cr_assert_eq(inspect_image(space.store, "image", &detail), 0);
        cr_assert_eq(unpack_file(space.store, "image", space.output), 0);
        cr_assert(same_files(space.memory, space.output));
        unlink(space.output);
        save(image_path, image.at, image.len);
        save(pack_path, pack.at, pack.len);
        free(image_1);
        free(pack_1);
        free(image.at);
        free(pack.at);
    }
}

// 64 GiB with a few pages in it.
Test(lazy, a_large_image_costs_what_it_holds)
{
    struct stat status;
    struct fl_image_detail detail;
    uint64_t bad = 1;
    char page[FL_PAGE_SIZE];
    uint64_t bytes = UINT64_C(64) << 30;
    FL_AUTO_CLOSE int fd = open(space.memory, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fill_page(page, 1);
    cr_assert_eq(fl_pwrite_full(fd, page, sizeof(page), 0), 0);
    cr_assert_eq(fl_pwrite_full(fd, page, sizeof(page), bytes / 2), 0);
    int r = ftruncate(fd, (off_t)bytes);
    cr_assert_eq(r, 0);
    pack_memory();
    cr_assert_eq(stat(image_path, &status), 0);
    cr_assert_lt(status.st_size, 256 << 10);
    struct fl_image *image = open_lazy();
    cr_assert_eq(fl_image_pages(image), bytes / FL_PAGE_SIZE);
    cr_assert_eq(fl_image_read_map(image, 0, UINT64_MAX), 0);
    cr_assert_eq(fl_image_run(image, 1, UINT32_MAX).pages, bytes / FL_PAGE_SIZE / 2 - 1);
    cr_assert_eq(fl_image_run(image, bytes / FL_PAGE_SIZE / 2, 9).pages, 1);
    fl_image_unref(image);
    cr_assert_eq(inspect_image(space.store, "image", &detail), 0);
    cr_assert_eq(detail.ranges, 2);
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
}
