// SPDX-License-Identifier: Apache-2.0
//
// Frames of each codec and level: what goes in comes out, and nothing that was changed on the way
// does, nor does anything that the library would decompress but no packer writes.
#define ZSTD_STATIC_LINKING_ONLY
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "snapshot/encoder.h"
#include "snapshot/frame.h"
#include "snapshot/io.h"
#include "tests/unit/snapshot_sign.h"
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

TestSuite(codec, .init = setup, .fini = teardown, .timeout = 110);

static const struct fl_compression ways[] = {
    {FL_CODEC_LZ4, 1},  {FL_CODEC_LZ4, 3},  {FL_CODEC_LZ4, 9},   {FL_CODEC_LZ4, 12},
    {FL_CODEC_ZSTD, 1}, {FL_CODEC_ZSTD, 3}, {FL_CODEC_ZSTD, 19},
};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static uint8_t input[FL_FRAME_PAGES_MAX * FL_PAGE_SIZE];
static uint8_t stored[sizeof(input)];
static uint8_t output[sizeof(input)];

static void fill_input(uint32_t pages)
{
    for (uint32_t i = 0; i < pages; i++)
        fill_page(input + (size_t)i * FL_PAGE_SIZE, 1000 + i);
}

static struct fl_disk_frame encode(struct fl_compression how, uint32_t pages)
{
    struct fl_encoder *encoder;
    struct fl_disk_frame frame;
    cr_assert_eq(fl_encoder_new(how, &encoder), 0);
    fl_encode(encoder, input, pages, stored, &frame);
    fl_encoder_free(encoder);
    frame.offset = sizeof(struct fl_disk_pack_header);
    cr_assert(fl_frame_valid(&frame, INT64_MAX));
    return frame;
}

static int decode(const struct fl_disk_frame *frame)
{
    memset(output, 0xa5, sizeof(output));
    return fl_frame_decode(frame, stored, output);
}

Test(codec, frames_of_each_codec_and_level)
{
    static const uint32_t sizes[] = {1, 3, FL_FRAME_PAGES, FL_FRAME_PAGES_MAX};
    for (unsigned way = 0; way < WAYS; way++) {
        for (unsigned i = 0; i < 4; i++) {
            fill_input(sizes[i]);
            struct fl_disk_frame frame = encode(ways[way], sizes[i]);
            cr_assert_eq(frame.codec, ways[way].codec);
            cr_assert_lt(frame.stored, sizes[i] * FL_PAGE_SIZE);
            cr_assert_eq(decode(&frame), 0, "way %u, %u pages", way, sizes[i]);
            cr_assert_arr_eq(output, input, sizes[i] * FL_PAGE_SIZE);
        }
    }
}

Test(codec, noise_is_stored_raw)
{
    uint64_t state = test_seed();
    for (size_t i = 0; i < FL_FRAME_PAGES * FL_PAGE_SIZE; i += sizeof(uint64_t))
        *(uint64_t *)(void *)(input + i) = test_random(&state);
    for (unsigned way = 0; way < WAYS; way++) {
        struct fl_disk_frame frame = encode(ways[way], FL_FRAME_PAGES);
        cr_assert_eq(frame.codec, FL_CODEC_RAW);
        cr_assert_eq(decode(&frame), 0);
        cr_assert_arr_eq(output, input, FL_FRAME_PAGES * FL_PAGE_SIZE);
    }
}

Test(codec, what_is_no_level_is_refused)
{
    struct fl_encoder *encoder = NULL;
    cr_assert_eq(fl_encoder_new((struct fl_compression){FL_CODEC_LZ4, 13}, &encoder), -EINVAL);
    cr_assert_eq(fl_encoder_new((struct fl_compression){FL_CODEC_ZSTD, 20}, &encoder), -EINVAL);
    cr_assert_null(encoder);
}

// The bytes in `stored` as a frame whose checksum fits.
static struct fl_disk_frame sealed(size_t bytes, uint32_t pages)
{
    return (struct fl_disk_frame){.checksum = fl_checksum(stored, bytes),
                                  .stored = (uint32_t)bytes,
                                  .pages = (uint16_t)pages,
                                  .codec = FL_CODEC_ZSTD};
}

// Each of them is well-formed, and libzstd would give `pages` pages for some.
Test(codec, only_one_plain_frame_of_the_right_size)
{
    enum { PAGES = 4, BYTES = PAGES * FL_PAGE_SIZE };
    fill_input(PAGES);
    size_t used = ZSTD_compress(stored, sizeof(stored), input, BYTES, 3);
    struct fl_disk_frame frame = sealed(used, PAGES);
    cr_assert_eq(decode(&frame), 0);
    frame = sealed(used, PAGES + 1);
    cr_assert_eq(decode(&frame), -EBADMSG, "fewer bytes than the pages have");
    frame = sealed(used, PAGES - 1);
    cr_assert_eq(decode(&frame), -EBADMSG, "more bytes than the pages have");
    for (size_t i = (PAGES - 1) * FL_PAGE_SIZE; i < BYTES; i++)
        cr_assert_eq(output[i], 0xa5, "nothing is written beyond");
    frame = sealed(used - 1, PAGES);
    cr_assert_eq(decode(&frame), -EBADMSG, "cut short");
    stored[used] = 0;
    frame = sealed(used + 1, PAGES);
    cr_assert_eq(decode(&frame), -EBADMSG, "a byte behind it");
    for (size_t i = 0; i < 4; i++) {
        frame = sealed(i, PAGES);
        cr_assert_eq(decode(&frame), -EBADMSG, "no header");
    }

    size_t half = ZSTD_compress(stored, sizeof(stored), input, BYTES / 2, 3);
    half += ZSTD_compress(stored + half, sizeof(stored) - half, input + BYTES / 2, BYTES / 2, 3);
    frame = sealed(half, PAGES);
    cr_assert_eq(decode(&frame), -EBADMSG, "two frames");

    // What these two have before or behind the frame would be no byte of the pages.
    static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0};
    used = ZSTD_compress(stored, sizeof(stored), input, BYTES, 3);
    memcpy(stored + used, skippable, sizeof(skippable));
    frame = sealed(used + sizeof(skippable), PAGES);
    cr_assert_eq(decode(&frame), -EBADMSG, "a frame, and one that is to be skipped");
    memcpy(stored, skippable, sizeof(skippable));
    used = ZSTD_compress(stored + sizeof(skippable), sizeof(stored) / 2, input, BYTES, 3);
    frame = sealed(used + sizeof(skippable), PAGES);
    cr_assert_eq(decode(&frame), -EBADMSG, "a frame that is to be skipped, and one");
}

Test(codec, neither_dictionary_nor_unknown_size)
{
    enum { PAGES = 4, BYTES = PAGES * FL_PAGE_SIZE };
    fill_input(PAGES);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
    size_t used = ZSTD_compress2(context, stored, sizeof(stored), input, BYTES);
    struct fl_disk_frame frame = sealed(used, PAGES);
    cr_assert_eq(decode(&frame), -EBADMSG, "a frame that does not say its size");
    // Its descriptor says that an id of 4 bytes follows: a frame of one piece, 8 bytes of size.
    static const uint8_t header[] = {0x28, 0xb5, 0x2f, 0xfd, 0xe3, 7, 0, 0, 0,
                                     0,    0x40, 0,    0,    0,    0, 0, 0};
    memcpy(stored, header, sizeof(header));
    stored[sizeof(header)] = 1 | (BYTES << 3 & 0xf8); // the last block, raw, of BYTES
    stored[sizeof(header) + 1] = (uint8_t)((unsigned)BYTES >> 5);
    stored[sizeof(header) + 2] = (uint8_t)((unsigned)BYTES >> 13);
    memcpy(stored + sizeof(header) + 3, input, BYTES);
    frame = sealed(sizeof(header) + 3 + BYTES, PAGES);
    cr_assert_eq(ZSTD_getFrameContentSize(stored, frame.stored), BYTES);
    cr_assert_eq(ZSTD_findFrameCompressedSize(stored, frame.stored), frame.stored);
    cr_assert_eq(decode(&frame), -EBADMSG, "a dictionary");
    stored[4] = 0xe0; // no id: the same frame without it is right
    memmove(stored + 5, stored + 9, frame.stored - 9);
    frame = sealed(frame.stored - 4, PAGES);
    cr_assert_eq(decode(&frame), 0);
    ZSTD_freeCCtx(context);
}

// With checksums that fit, as no accident has them: an error or some bytes, within bounds.
Test(codec, changed_bytes)
{
    uint64_t state = test_seed();
    int errors = 0;
    fill_input(FL_FRAME_PAGES);
    const struct fl_disk_frame good = encode((struct fl_compression){FL_CODEC_ZSTD, 3}, 16);
    uint8_t *kept = malloc(good.stored);
    uint8_t *exact = malloc(FL_FRAME_PAGES * FL_PAGE_SIZE); // what is beyond is not its own
    cr_assert(kept && exact);
    memcpy(kept, stored, good.stored);
    for (int i = 0; i < 4000; i++) {
        struct fl_disk_frame frame = good;
        for (uint64_t n = 1 + test_random(&state) % 3; n > 0; n--)
            stored[test_random(&state) % (i % 2 ? 64 : good.stored)] ^=
                (uint8_t)(1u << test_random(&state) % 8);
        cr_assert(fl_frame_decode(&frame, stored, exact) == -EBADMSG ||
                  memcmp(stored, kept, good.stored) == 0);
        frame.checksum = fl_checksum(stored, frame.stored);
        int r = fl_frame_decode(&frame, stored, exact);
        cr_assert(r == 0 || r == -EBADMSG);
        errors += r < 0;
        fl_frame_salvage(&frame, stored, exact);
        memcpy(stored, kept, good.stored);
    }
    cr_assert_gt(errors, 200);
    free(kept);
    free(exact);
}

static struct fl_disk_frame shared_frame;

static void *decode_often(void *arg)
{
    uint8_t *buf = malloc(FL_FRAME_PAGES * FL_PAGE_SIZE);
    *(int *)arg = buf ? 0 : -ENOMEM;
    for (int i = 0; buf && i < 200 && *(int *)arg == 0; i++) {
        *(int *)arg = fl_frame_decode(&shared_frame, stored, buf);
        if (memcmp(buf, input, FL_FRAME_PAGES * FL_PAGE_SIZE) != 0)
            *(int *)arg = -EIO;
    }
    free(buf);
    return NULL;
}

Test(codec, threads_do_not_share_a_decoder)
{
    enum { THREADS = 6 };
    pthread_t threads[THREADS];
    int results[THREADS];
    fill_input(FL_FRAME_PAGES);
    shared_frame = encode((struct fl_compression){FL_CODEC_ZSTD, 3}, FL_FRAME_PAGES);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, decode_often, &results[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        cr_assert_eq(results[i], 0);
    }
}

// --- packs ---

static int pack_with(const char *name, struct fl_compression how, struct fl_pack_result *ret_result)
{
    struct fl_store *store;
    const struct fl_pack_options options = {.name = name, .path = space.memory, .compression = how};
    cr_assert_eq(fl_store_open(space.store, true, &store, NULL), 0);
    int r = fl_store_pack(store, &options, ret_result, NULL);
    fl_store_close(store);
    return r;
}

// Of the pack's header and of its footer.
static void expect_version(uint32_t version)
{
    char path[256];
    struct fl_disk_pack_header header;
    struct fl_disk_pack_footer footer;
    cr_assert_eq(only_file(space.store, "packs", path, sizeof(path)), 0);
    FILE *file = fopen(path, "re");
    cr_assert(file && fread(&header, sizeof(header), 1, file) == 1);
    cr_assert(fseek(file, -(long)sizeof(footer), SEEK_END) == 0 &&
              fread(&footer, sizeof(footer), 1, file) == 1);
    fclose(file);
    cr_assert_eq(header.version, version);
    cr_assert_eq(footer.version, version);
}

Test(codec, images_of_each_codec_and_level)
{
    uint64_t state = test_seed();
    uint64_t bytes[WAYS];
    cr_assert_eq(make_memory(space.memory, (5 << 20) - 1000, &state), 0);
    for (unsigned way = 0; way < WAYS; way++) {
        struct fl_pack_result result;
        struct fl_image *image;
        uint64_t bad = 1;
        cr_assert_eq(pack_with("image", ways[way], &result), 0);
        bytes[way] = result.stored_bytes;
        expect_version(ways[way].codec == FL_CODEC_ZSTD ? 3 : 2);
        cr_assert_eq(open_image(space.store, "image", &image), 0);
        cr_assert(image_is_file(image, space.memory));
        fl_image_unref(image);
        cr_assert_eq(unpack_file(space.store, "image", space.output), 0);
        cr_assert(same_files(space.memory, space.output));
        cr_assert_eq(verify_store(space.store, &bad), 0);
        cr_assert_eq(bad, 0);
        remove_tree(space.store);
    }
    cr_assert_leq(bytes[2], bytes[0], "LZ4HC is not larger");
    cr_assert_leq(bytes[6], bytes[4], "zstd 19 is not larger than 1");
}

// What is there is shared, whatever compressed it; and a page comes back from the pack that has it.
Test(codec, sharing_across_codecs)
{
    struct fl_pack_result first;
    struct fl_pack_result second;
    uint64_t bad = 1;
    cr_assert_eq(make_pages(space.memory, 1, 300), 0);
    cr_assert_eq(pack_with("zstd", (struct fl_compression){FL_CODEC_ZSTD, 3}, &first), 0);
    cr_assert_eq(make_pages(space.memory, 101, 300), 0);
    cr_assert_eq(pack_with("lz4", (struct fl_compression){FL_CODEC_LZ4, 9}, &second), 0);
    cr_assert_eq(first.stored_pages, 300);
    cr_assert_eq(second.shared_pages, 200);
    cr_assert_eq(second.stored_pages, 100);
    cr_assert_eq(unpack_file(space.store, "lz4", space.output), 0);
    cr_assert(same_files(space.memory, space.output));
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
}

// A pack that does not say that it has such frames is damaged; one of a version to come is refused.
Test(codec, versions)
{
    char path[256];
    struct fl_pack_result result;
    struct fl_image *image;
    struct fl_error error;
    struct fl_store *store;
    struct fl_image_detail detail;
    cr_assert_eq(make_pages(space.memory, 1, 40), 0);
    cr_assert_eq(pack_with("image", (struct fl_compression){FL_CODEC_ZSTD, 3}, &result), 0);
    cr_assert_eq(only_file(space.store, "packs", path, sizeof(path)), 0);
    static uint8_t bytes[1 << 20];
    FL_AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    ssize_t used = read(fd, bytes, sizeof(bytes));
    cr_assert(used > 0 && (size_t)used < sizeof(bytes));
    size_t footer = (size_t)used - sizeof(struct fl_disk_pack_footer);
    for (uint8_t version = 2; version <= 4; version++) {
        bytes[8] = bytes[footer + 8] = version;
        sign_pack(bytes, (size_t)used);
        cr_assert_eq(pwrite(fd, bytes, (size_t)used, 0), used);
        int r = open_image(space.store, "image", &image);
        cr_assert_eq(r, version == 2 ? -EBADMSG : version == 3 ? 0 : -EPROTONOSUPPORT);
        if (r == 0)
            fl_image_unref(image);
    }
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0);
    cr_assert_eq(fl_store_inspect(store, "image", &detail, &error), -EPROTONOSUPPORT);
    cr_assert(strstr(error.text, "which it needs, has a format version that is not known"), "%s",
              error.text);
    fl_store_close(store);
}
