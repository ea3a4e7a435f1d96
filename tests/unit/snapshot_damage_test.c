// SPDX-License-Identifier: Apache-2.0
//
// Files of the store are untrusted: whatever is in them, nothing crashes (run it under ASan), and
// no byte is ever given out that is not the page's.
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

static struct workspace space;
static char pack_path[256];
static char image_path[256];

struct bytes {
    uint8_t *at;
    size_t len;
};

static void load(const char *path, struct bytes *ret_bytes)
{
    struct stat st;
    FL_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fstat(fd, &st), 0);
    ret_bytes->len = (size_t)st.st_size;
    ret_bytes->at = malloc(ret_bytes->len + 1);
    cr_assert_eq(fl_pread_full(fd, ret_bytes->at, ret_bytes->len, 0), 0);
}

static void save(const char *path, const uint8_t *bytes, size_t len)
{
    FL_AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fl_pwrite_full(fd, bytes, len, 0), 0);
}

// 71 pages: zero ones, compressible ones, and noise that fills the third frame.
static void setup(void)
{
    struct fl_pack_result result;
    char page[FL_PAGE_SIZE];
    uint64_t state = 42;
    cr_assert_eq(workspace_make(&space), 0);
    cr_assert_eq(make_pages(space.memory, 1, 0), 0);
    FL_AUTO_CLOSE int fd = open(space.memory, O_RDWR | O_CLOEXEC);
    for (uint64_t i = 0; i < 70; i++) {
        memset(page, (int)i, sizeof(page));
        for (size_t k = 0; i >= 40 && i < 60 && k < sizeof(page); k++)
            page[k] = (char)test_random(&state);
        if (i % 5)
            cr_assert_eq(fl_pwrite_full(fd, page, sizeof(page), i * FL_PAGE_SIZE), 0);
    }
    cr_assert_eq(fl_pwrite_full(fd, "end", 3, UINT64_C(70) * FL_PAGE_SIZE), 0);
    cr_assert_eq(pack_file(space.store, "small", space.memory, &result), 0);
    cr_assert_eq(only_file(space.store, "packs", pack_path, sizeof(pack_path)), 0);
    snprintf(image_path, sizeof(image_path), "%s/images/small.img", space.store);
}

static void teardown(void)
{
    workspace_remove(&space);
}

TestSuite(damage, .init = setup, .fini = teardown, .timeout = 170);

// Reads all there is. Counts the frames that were refused; every other byte has to be right.
static int read_all(const struct fl_image *image, int *ret_refused)
{
    FL_AUTO_CLOSE int fd = open(space.memory, O_RDONLY | O_CLOEXEC);
    static uint8_t frame[FL_FRAME_PAGES_MAX * FL_PAGE_SIZE];
    static uint8_t expected[FL_FRAME_PAGES_MAX * FL_PAGE_SIZE];
    *ret_refused = 0;
    for (uint64_t page = 0; page < fl_image_pages(image);) {
        struct fl_run run = fl_image_run(image, page, FL_FRAME_PAGES_MAX);
        size_t bytes = (size_t)run.pages * FL_PAGE_SIZE;
        memset(expected, 0, bytes);
        memset(frame, 0, bytes);
        cr_assert_geq(pread(fd, expected, bytes, (off_t)(page * FL_PAGE_SIZE)), 0);
        int r = run.zero ? 0 : fl_frame_read(image, run.id, frame);
        if (r < 0) {
            ++*ret_refused;
            r = read_in_two_steps(image, run.id, (char *)frame, sizeof(frame));
            cr_assert_lt(r, 0, "it is right in two steps only");
        }
        if (r == 0 && memcmp(frame + (size_t)run.slot * FL_PAGE_SIZE, expected, bytes) != 0)
            return -EILSEQ;
        page += run.pages;
    }
    return 0;
}

Test(damage, every_byte_of_the_image_file)
{
    struct bytes good;
    load(image_path, &good);
    for (size_t i = 0; i < good.len; i++) {
        struct fl_image *image;
        good.at[i] ^= (uint8_t)(1U << i % 8);
        save(image_path, good.at, good.len);
        cr_assert_eq(open_image(space.store, "small", &image), -EBADMSG, "byte %zu of %zu", i,
                     good.len);
        good.at[i] ^= (uint8_t)(1U << i % 8);
    }
    free(good.at);
}

// The bytes of frames are all alike: some are enough.
static size_t next_byte(size_t i, const struct fl_disk_pack_footer *footer)
{
    bool in_frames = i >= sizeof(struct fl_disk_pack_header) && i + 64 < footer->table_offset;
    return in_frames ? i + 31 : i + 1;
}

Test(damage, every_byte_of_the_pack)
{
    struct bytes good;
    struct fl_disk_pack_footer footer;
    load(pack_path, &good);
    memcpy(&footer, good.at + good.len - sizeof(footer), sizeof(footer));
    size_t identities = footer.table_offset + footer.frames * sizeof(struct fl_disk_frame);
    for (size_t i = 0; i < good.len; i = next_byte(i, &footer)) {
        struct fl_image *image;
        int refused;
        good.at[i] ^= (uint8_t)(1U << i % 8);
        save(pack_path, good.at, good.len);
        int r = open_image(space.store, "small", &image);
        bool in_frames = i >= sizeof(struct fl_disk_pack_header) && i < footer.table_offset;
        bool in_identities = i >= identities && i < identities + footer.pages * FL_IDENTITY_BYTES;
        if (in_frames || in_identities) {
            cr_assert_eq(r, 0, "byte %zu", i);
            cr_assert_eq(read_all(image, &refused), 0, "byte %zu gives wrong pages", i);
            cr_assert_eq(refused > 0, in_frames, "byte %zu", i);
            fl_image_unref(image);
        } else {
            cr_assert_eq(r, -EBADMSG, "byte %zu", i);
        }
        good.at[i] ^= (uint8_t)(1U << i % 8);
    }
    free(good.at);
}

static void cut_everywhere(const char *path)
{
    struct bytes good;
    struct fl_image *image;
    load(path, &good);
    size_t dense = 4096; // of the start and of the end every length, in between some
    for (size_t len = 0; len<good.len; len += len> dense && len + dense < good.len ? 31 : 1) {
        save(path, good.at, len);
        cr_assert_eq(open_image(space.store, "small", &image), -EBADMSG, "%s cut at %zu", path,
                     len);
    }
    good.at[good.len] = 0;
    save(path, good.at, good.len + 1);
    cr_assert_eq(open_image(space.store, "small", &image), -EBADMSG, "%s with a byte more", path);
    free(good.at);
}

Test(damage, every_length_of_the_image_file)
{
    cut_everywhere(image_path);
}

Test(damage, every_length_of_the_pack)
{
    cut_everywhere(pack_path);
}

Test(damage, a_missing_pack_is_damage)
{
    struct fl_image *image;
    int r = unlink(pack_path);
    cr_assert_eq(r, 0);
    cr_assert_eq(open_image(space.store, "small", &image), -EBADMSG);
}

Test(damage, an_image_under_another_name_is_refused)
{
    char other[256];
    struct fl_reader *reader;
    struct fl_image *image;
    snprintf(other, sizeof(other), "%s/images/other.img", space.store);
    int r = link(image_path, other);
    cr_assert_eq(r, 0);
    cr_assert_eq(fl_reader_open(space.store, &reader), 0);
    cr_assert_eq(fl_image_open(reader, "other", &image), -EBADMSG);
    fl_reader_close(reader);
}

static uint8_t strange_byte(uint64_t *state)
{
    static const uint8_t strange[] = {0, 1, 0x7f, 0x80, 0xff};
    uint64_t number = test_random(state);
    return number % 2 ? (uint8_t)(number >> 8) : strange[(number >> 8) % sizeof(strange)];
}

// Who can write the file can make the checksums right as well: then bounds alone are between the
// file and the process. Pages may be any of the store's bytes then; memory errors are what is
// looked for.
static void read_anything(void)
{
    struct fl_image *image;
    static uint8_t frame[FL_FRAME_PAGES_MAX * FL_PAGE_SIZE];
    if (open_image(space.store, "small", &image) < 0)
        return;
    for (uint64_t page = 0; page < fl_image_pages(image);) {
        struct fl_run run = fl_image_run(image, page, 1 << 20);
        cr_assert_geq(run.pages, 1);
        if (!run.zero) {
            cr_assert_leq(run.slot + run.pages, fl_frame_pages(image, run.id));
            fl_frame_read(image, run.id, frame);
        }
        page += run.pages;
    }
    fl_image_unref(image);
}

Test(damage, lies_in_the_image_file_with_right_checksums)
{
    struct bytes good;
    uint64_t state = test_seed();
    load(image_path, &good);
    struct bytes bad = {.at = malloc(good.len), .len = good.len};
    for (int i = 0; i < 5000; i++) {
        memcpy(bad.at, good.at, good.len);
        for (uint64_t n = test_random(&state) % 4 + 1; n > 0; n--)
            bad.at[test_random(&state) % bad.len] = strange_byte(&state);
        sign_image(bad.at, bad.len);
        save(image_path, bad.at, bad.len);
        read_anything();
    }
    free(bad.at);
    free(good.at);
}

Test(damage, lies_in_the_pack_with_right_checksums)
{
    struct bytes good;
    struct fl_disk_pack_footer footer;
    uint64_t state = test_seed();
    uint64_t bad_count;
    load(pack_path, &good);
    memcpy(&footer, good.at + good.len - sizeof(footer), sizeof(footer));
    size_t table_bytes = footer.frames * sizeof(struct fl_disk_frame);
    struct bytes bad = {.at = malloc(good.len), .len = good.len};
    for (int i = 0; i < 5000; i++) {
        memcpy(bad.at, good.at, good.len);
        for (uint64_t n = test_random(&state) % 3 + 1; n > 0; n--) {
            size_t tail = sizeof(footer);
            size_t at = test_random(&state) % 3
                            ? footer.table_offset + test_random(&state) % table_bytes
                            : bad.len - tail + test_random(&state) % tail;
            bad.at[at] = strange_byte(&state);
        }
        sign_pack(bad.at, bad.len);
        save(pack_path, bad.at, bad.len);
        read_anything();
        if (i % 50 == 0)
            cr_assert_eq(verify_store(space.store, &bad_count), 0);
    }
    free(bad.at);
    free(good.at);
}

Test(damage, verify_names_what_is_bad)
{
    struct bytes good;
    uint64_t bad;
    struct fl_disk_pack_footer footer;
    load(pack_path, &good);
    memcpy(&footer, good.at + good.len - sizeof(footer), sizeof(footer));
    size_t identities = footer.table_offset + footer.frames * sizeof(struct fl_disk_frame);
    const size_t places[] = {sizeof(struct fl_disk_pack_header), identities, good.len - 1, 0};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        good.at[places[i]] ^= 1;
        save(pack_path, good.at, good.len);
        cr_assert_eq(verify_store(space.store, &bad), 0);
        cr_assert_geq(bad, 1, "byte %zu", places[i]);
        good.at[places[i]] ^= 1;
    }
    save(pack_path, good.at, good.len);
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
    free(good.at);
}

Test(damage, verify_sees_a_page_that_is_not_the_recorded_one)
{
    struct bytes pack;
    struct fl_disk_pack_footer footer;
    struct fl_disk_frame frame;
    uint64_t bad;
    load(pack_path, &pack);
    memcpy(&footer, pack.at + pack.len - sizeof(footer), sizeof(footer));
    // The third frame is noise, so it is raw: change a byte and make its checksum right.
    uint64_t at = footer.table_offset + 2 * sizeof(frame);
    memcpy(&frame, pack.at + at, sizeof(frame));
    cr_assert_eq(frame.codec, FL_CODEC_RAW);
    pack.at[frame.offset] ^= 1;
    frame.checksum = fl_checksum(pack.at + frame.offset, frame.stored);
    memcpy(pack.at + at, &frame, sizeof(frame));
    sign_pack(pack.at, pack.len);
    save(pack_path, pack.at, pack.len);
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 2, "the page, and the image that needs it");
    free(pack.at);
}

Test(damage, gc_removes_no_pack_while_an_image_cannot_be_read)
{
    struct bytes good;
    load(image_path, &good);
    good.at[100] ^= 1;
    save(image_path, good.at, good.len);
    cr_assert_eq(collect_store(space.store, false, NULL), -EBADMSG);
    cr_assert_eq(count_files(space.store, "packs"), 1);
    free(good.at);
}
