// SPDX-License-Identifier: Apache-2.0
//
// Recompressing and compacting: no byte of an image changes, nothing is stored twice, and what is
// of no use goes.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "snapshot/image.h"
#include "snapshot/io.h"
#include "snapshot/move_list.h"
#include "tests/unit/snapshot_support.h"

enum { IMAGES = 3, BYTES = 3 << 20 };

static struct workspace space;
static char memory[IMAGES][160]; // of the images "0", "1" and "2", which share most of their pages
static const char *const names[IMAGES] = {"0", "1", "2"};

static void setup(void)
{
    cr_assert_eq(workspace_make(&space), 0);
    for (int i = 0; i < IMAGES; i++)
        snprintf(memory[i], sizeof(memory[i]), "%s/memory-%d", space.dir, i);
}

static void teardown(void)
{
    workspace_remove(&space);
}

TestSuite(recompress, .init = setup, .fini = teardown, .timeout = 110);

static void copy_file(const char *from, const char *to)
{
    char command[1024];
    snprintf(command, sizeof(command), "cp '%s' '%s'", from, to);
    cr_assert_eq(system(command), 0);
}

// Each is the one before with pages of its own here and there.
static void make_lineage(uint64_t *state)
{
    cr_assert_eq(make_memory(memory[0], BYTES - 77, state), 0);
    for (int i = 0; i < IMAGES; i++) {
        if (i > 0) {
            copy_file(memory[i - 1], memory[i]);
            FL_AUTO_CLOSE int fd = open(memory[i], O_RDWR | O_CLOEXEC);
            for (int n = 0; n < 80; n++) {
                char page[FL_PAGE_SIZE];
                fill_page(page, test_random(state));
                cr_assert_eq(
                    fl_pwrite_full(fd, page, sizeof(page),
                                   test_random(state) % (BYTES / FL_PAGE_SIZE - 1) * FL_PAGE_SIZE),
                    0);
            }
        }
        cr_assert_eq(pack_file(space.store, names[i], memory[i], NULL), 0);
    }
}

static struct fl_error said;

static int recompress(const struct fl_recompress_options *options,
                      struct fl_rewrite_result *ret_result)
{
    struct fl_store *store = NULL;
    cr_assert_eq(fl_store_open(space.store, false, &store, NULL), 0);
    int r = fl_store_recompress(store, options, ret_result, &said);
    fl_store_close(store);
    return r;
}

static struct fl_rewrite_result recompress_all(struct fl_compression how)
{
    struct fl_rewrite_result result;
    const struct fl_recompress_options options = {.compression = how, .threads = 2};
    cr_assert_eq(recompress(&options, &result), 0, "%s", said.text);
    return result;
}

static int compact(const struct fl_compact_options *options, struct fl_rewrite_result *ret_result)
{
    struct fl_store *store = NULL;
    cr_assert_eq(fl_store_open(space.store, false, &store, NULL), 0);
    int r = fl_store_compact(store, options, ret_result, &said);
    fl_store_close(store);
    return r;
}

static void expect_sound(int first)
{
    uint64_t bad = 1;
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
    for (int i = first; i < IMAGES; i++) {
        struct fl_image *image;
        cr_assert_eq(open_image(space.store, names[i], &image), 0);
        cr_assert(image_is_file(image, memory[i]));
        fl_image_unref(image);
    }
    cr_assert_eq(count_files(space.store, "tmp"), 0);
}

// Of all packs: what is stored, each page as often as it is. The worst range of any image.
struct total {
    uint64_t pages, bytes, range_max, range_frames;
    int zstd; // packs of version 3
};

static void add_pack(const char *path, struct total *total)
{
    struct fl_disk_pack_footer footer;
    FILE *file = fopen(path, "re");
    cr_assert(file && fseek(file, -(long)sizeof(footer), SEEK_END) == 0 &&
              fread(&footer, sizeof(footer), 1, file) == 1);
    total->bytes += (uint64_t)ftell(file);
    fclose(file);
    total->pages += footer.pages;
    total->zstd += footer.version == 3;
}

static struct total add_up(int first)
{
    struct total total = {0};
    char line[256];
    char command[256];
    snprintf(command, sizeof(command), "ls '%s'/packs/*", space.store);
    FILE *list = popen(command, "re");
    while (fgets(line, sizeof(line), list)) {
        line[strcspn(line, "\n")] = '\0';
        add_pack(line, &total);
    }
    pclose(list);
    for (int i = first; i < IMAGES; i++) {
        struct fl_image_detail detail;
        cr_assert_eq(inspect_image(space.store, names[i], &detail), 0);
        total.range_frames += detail.range_frames;
        if (detail.range_frames_max > total.range_max)
            total.range_max = detail.range_frames_max;
    }
    return total;
}

// One image is named: the packs that it shares are written once, for all.
Test(recompress, lineage_is_stored_once_in_the_new_codec)
{
    static const struct fl_compression ways[] = {
        {FL_CODEC_ZSTD, 3}, {FL_CODEC_LZ4, 9}, {FL_CODEC_ZSTD, 9}};
    uint64_t state = test_seed();
    struct fl_image *open_before;
    make_lineage(&state);
    cr_assert_eq(open_image(space.store, "1", &open_before), 0);
    struct total before = add_up(0);
    for (int i = 0; i < 3; i++) {
        const struct fl_recompress_options options = {
            .names = &names[2], .names_count = 1, .compression = ways[i], .threads = 3};
        struct fl_rewrite_result result;
        struct fl_gc_result collected;
        cr_assert_eq(recompress(&options, &result), 0, "%s", said.text);
        cr_assert_eq(result.packs_rewritten, 3);
        cr_assert_eq(result.images, 3, "each image got one new map");
        expect_sound(0);
        cr_assert_eq(collect_store(space.store, false, &collected), 0);
        cr_assert_eq(collected.packs_removed, 3);
        expect_sound(0);
        struct total now = add_up(0);
        cr_assert_eq(now.pages, before.pages, "nothing is stored twice, or lost");
        cr_assert_eq(now.zstd, ways[i].codec == FL_CODEC_ZSTD ? 3 : 0);
        cr_assert_leq(now.range_max, before.range_max);
        cr_assert_leq(now.range_frames, before.range_frames);
        cr_assert(now.bytes < before.bytes || ways[i].codec != FL_CODEC_ZSTD);
        struct fl_rewrite_result again = recompress_all(ways[i]);
        cr_assert_eq(again.packs_rewritten, 0, "a second run has nothing to do");
        cr_assert_eq(again.packs_left, 3);
    }
    cr_assert(image_is_file(open_before, memory[1]), "who has it open keeps it");
    fl_image_unref(open_before);
}

// The index knows the new places, and only these.
Test(recompress, later_images_share_the_new_packs)
{
    uint64_t state = test_seed();
    struct fl_pack_result packed;
    make_lineage(&state);
    recompress_all((struct fl_compression){FL_CODEC_ZSTD, 3});
    cr_assert_eq(remove_image(space.store, "1"), 0);
    cr_assert_eq(pack_file(space.store, "1", memory[1], &packed), 0);
    cr_assert_eq(packed.stored_pages - packed.declined_pages, 0);
    cr_assert_eq(collect_store(space.store, false, NULL), 0);
    cr_assert_eq(add_up(0).zstd, 3);
    expect_sound(0);
}

// What it has besides: trace, companions, labels; and a laid-out working set stays one.
Test(recompress, all_that_belongs_to_an_image_stays)
{
    static struct fl_trace_entry touches[400];
    const struct fl_recording one = {.entries = touches, .count = 400};
    const struct fl_companion_file with = {"state", memory[1]};
    const char *const label = "a=b";
    const struct fl_pack_options options = {.name = "0",
                                            .path = memory[0],
                                            .with = &with,
                                            .with_count = 1,
                                            .labels = &label,
                                            .labels_count = 1};
    struct fl_store *store;
    struct fl_pack_result packed;
    struct fl_optimize_result laid_out;
    struct fl_image_about about;
    struct fl_trace *trace;
    const struct fl_optimize_options layout = {.name = "0"};
    cr_assert_eq(make_pages(memory[0], 1, 700), 0);
    cr_assert_eq(make_pages(memory[1], 5000, 40), 0);
    for (uint32_t i = 0; i < 400; i++)
        touches[i] = (struct fl_trace_entry){.page = (uint64_t)i * 37 % 700, .ms = i};
    cr_assert_eq(fl_store_open(space.store, true, &store, NULL), 0);
    cr_assert_eq(fl_store_pack(store, &options, &packed, NULL), 0);
    cr_assert_eq(merge_trace(space.store, "0", &one, 1, false), 0);
    cr_assert_eq(fl_store_optimize(store, &layout, &laid_out, NULL), 0);
    recompress_all((struct fl_compression){FL_CODEC_ZSTD, 3});
    cr_assert_eq(collect_store(space.store, false, NULL), 0);
    cr_assert_eq(fl_store_optimize(store, &layout, &laid_out, NULL), 0);
    cr_assert(laid_out.already);
    cr_assert_eq(laid_out.after.pieces, 1);
    cr_assert_eq(open_trace(space.store, "0", &trace), 0);
    fl_trace_unref(trace);
    cr_assert_eq(fl_store_image_about(store, "0", &about, NULL), 0);
    cr_assert_eq(about.companions_count, 1);
    cr_assert_eq(about.labels_count, 1);
    fl_image_about_free(&about);
    const struct fl_companion_file back = {"state", space.output};
    const struct fl_unpack_options unpack = {.name = "0", .with = &back, .with_count = 1};
    struct fl_unpack_result unpacked;
    cr_assert_eq(fl_store_unpack(store, &unpack, &unpacked, NULL), 0);
    cr_assert(same_files(memory[1], space.output));
    fl_store_close(store);
}

static void change_pack(const char *path, long at)
{
    FILE *file = fopen(path, "r+e");
    cr_assert(file && fseek(file, at, SEEK_SET) == 0);
    int byte = fgetc(file);
    cr_assert(fseek(file, at, SEEK_SET) == 0 && fputc(byte ^ 0xff, file) != EOF);
    fclose(file);
}

// A damaged frame is not copied as if it were right: its pages stay where repair looks for them.
Test(recompress, damaged_frame_stays)
{
    char path[256];
    struct fl_image *image;
    struct fl_gc_result collected;
    static char frame[FL_FRAME_PAGES * FL_PAGE_SIZE];
    cr_assert_eq(make_pages(memory[0], 1, 320), 0);
    cr_assert_eq(pack_file(space.store, "0", memory[0], NULL), 0);
    cr_assert_eq(only_file(space.store, "packs", path, sizeof(path)), 0);
    change_pack(path, sizeof(struct fl_disk_pack_header) + 10); // of the first frame
    struct fl_rewrite_result result = recompress_all((struct fl_compression){FL_CODEC_ZSTD, 3});
    cr_assert_eq(result.bad_frames, 1);
    cr_assert_eq(result.pages, 320 - FL_FRAME_PAGES);
    cr_assert_eq(collect_store(space.store, false, &collected), 0);
    cr_assert_eq(collected.packs_kept, 2);
    cr_assert_eq(open_image(space.store, "0", &image), 0);
    struct fl_run first = fl_image_run(image, 0, 1);
    struct fl_run next = fl_image_run(image, FL_FRAME_PAGES, 1);
    cr_assert_neq(first.id.pack, next.id.pack);
    cr_assert_eq(fl_frame_read(image, first.id, frame), -EBADMSG);
    cr_assert_eq(fl_frame_read(image, next.id, frame), 0);
    fl_image_unref(image);
    change_pack(path, sizeof(struct fl_disk_pack_header) + 10);
    cr_assert_eq(unpack_file(space.store, "0", space.output), 0);
    cr_assert(same_files(memory[0], space.output));
}

// The frame is read without an error, but is not what was packed.
Test(recompress, page_that_is_another_one_stays)
{
    char path[256];
    struct fl_disk_pack_footer footer;
    cr_assert_eq(make_pages(memory[0], 1, 320), 0);
    cr_assert_eq(pack_file(space.store, "0", memory[0], NULL), 0);
    cr_assert_eq(only_file(space.store, "packs", path, sizeof(path)), 0);
    FILE *file = fopen(path, "re");
    cr_assert(file && fseek(file, -(long)sizeof(footer), SEEK_END) == 0 &&
              fread(&footer, sizeof(footer), 1, file) == 1);
    fclose(file);
    long identities = (long)(footer.table_offset + footer.frames * sizeof(struct fl_disk_frame));
    change_pack(path, identities + 20 * (long)sizeof(struct fl_identity)); // of the second frame
    struct fl_rewrite_result result = recompress_all((struct fl_compression){FL_CODEC_ZSTD, 3});
    cr_assert_eq(result.bad_frames, 1);
    cr_assert_eq(result.pages, 320 - FL_FRAME_PAGES);
    cr_assert_eq(unpack_file(space.store, "0", space.output), 0);
    cr_assert(same_files(memory[0], space.output));
}

// A pack of which nothing can be moved stays, and nothing else is left.
Test(recompress, nothing_can_be_moved)
{
    char path[256];
    cr_assert_eq(make_pages(memory[0], 1, FL_FRAME_PAGES), 0);
    cr_assert_eq(pack_file(space.store, "0", memory[0], NULL), 0);
    cr_assert_eq(only_file(space.store, "packs", path, sizeof(path)), 0);
    change_pack(path, sizeof(struct fl_disk_pack_header) + 10);
    struct fl_rewrite_result result = recompress_all((struct fl_compression){FL_CODEC_ZSTD, 3});
    cr_assert_eq(result.packs_rewritten, 0);
    cr_assert_eq(result.bad_frames, 1);
    cr_assert_eq(count_files(space.store, "packs"), 1);
    cr_assert_eq(count_files(space.store, "tmp"), 0);
}

static int stop_at_once(void *arg, uint64_t done, uint64_t total)
{
    int *calls = arg;
    (void)done;
    (void)total;
    return ++*calls > 4; // after the packs were chosen
}

Test(recompress, interrupted_leaves_nothing)
{
    int calls = 0;
    uint64_t state = test_seed();
    struct fl_rewrite_result result;
    make_lineage(&state);
    const struct fl_recompress_options options = {
        .compression = {FL_CODEC_ZSTD, 3},
        .rate = 1, // it would take months
        .progress = {.fn = stop_at_once, .arg = &calls},
    };
    cr_assert_eq(recompress(&options, &result), -ECANCELED);
    cr_assert_eq(count_files(space.store, "packs"), 3);
    cr_assert_eq(add_up(0).zstd, 0);
    expect_sound(0);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

Test(recompress, no_faster_than_the_rate)
{
    struct fl_rewrite_result result;
    const struct fl_recompress_options options = {.compression = {FL_CODEC_ZSTD, 3},
                                                  .rate = 4 << 20};
    cr_assert_eq(make_pages(memory[0], 1, 500), 0);
    cr_assert_eq(pack_file(space.store, "0", memory[0], NULL), 0);
    double begin = now();
    cr_assert_eq(recompress(&options, &result), 0);
    double bytes = (double)(500 * FL_PAGE_SIZE / 2) * 2; // half of each is noise: read and written
    cr_assert_gt(now() - begin, 0.9 * bytes / (4 << 20));
}

Test(recompress, unknown_image)
{
    static const char *const unknown[] = {"0", "none"};
    struct fl_rewrite_result result;
    const struct fl_recompress_options options = {
        .names = unknown, .names_count = 2, .compression = {FL_CODEC_ZSTD, 3}};
    cr_assert_eq(make_pages(memory[0], 1, 40), 0);
    cr_assert_eq(pack_file(space.store, "0", memory[0], NULL), 0);
    cr_assert_eq(recompress(&options, &result), -ENOENT);
    cr_assert(strstr(said.text, "'none'"), "%s", said.text);
}

// --- compacting ---

static struct fl_rewrite_result compact_at(unsigned percent, bool dry_run)
{
    struct fl_rewrite_result result;
    const struct fl_compact_options options = {
        .percent = percent, .dry_run = dry_run, .threads = 2};
    cr_assert_eq(compact(&options, &result), 0, "%s", said.text);
    return result;
}

// "big" has 400 pages, of which "0" needs some frames as they are, some but for a page, and every
// third page of the others; all other pages are of no use once "big" is gone.
static uint64_t make_dead(struct fl_compression how)
{
    char page[FL_PAGE_SIZE];
    struct fl_store *store;
    struct fl_pack_result packed;
    const struct fl_pack_options options = {.name = "big", .path = memory[1], .compression = how};
    cr_assert_eq(make_pages(memory[1], 1, 400), 0);
    cr_assert_eq(fl_store_open(space.store, true, &store, NULL), 0);
    cr_assert_eq(fl_store_pack(store, &options, &packed, NULL), 0);
    fl_store_close(store);
    FILE *file = fopen(memory[0], "we");
    for (uint64_t i = 0; i < 400; i++) {
        bool needed = i < 64 || (i < 128 ? i % 16 != 5 : i % 3 == 0);
        if (!needed)
            continue;
        fill_page(page, 1 + i);
        cr_assert_eq(fwrite(page, sizeof(page), 1, file), 1);
    }
    fclose(file);
    cr_assert_eq(pack_file(space.store, "0", memory[0], &packed), 0);
    cr_assert_eq(packed.stored_pages, 0);
    cr_assert_eq(remove_image(space.store, "big"), 0);
    return packed.shared_pages;
}

Test(recompress, compacting_leaves_what_is_needed)
{
    static const struct fl_compression ways[] = {{FL_CODEC_LZ4, 1}, {FL_CODEC_ZSTD, 1}};
    for (int i = 0; i < 2; i++) {
        struct fl_gc_result collected;
        struct fl_pack_result packed;
        uint64_t needed = make_dead(ways[i]);
        unsigned dead = (unsigned)((400 - needed) * 100 / 400);
        cr_assert_eq(compact_at(dead + 1, false).packs_rewritten, 0, "it is not so much");
        struct fl_rewrite_result would = compact_at(dead, true);
        cr_assert_eq(would.packs_rewritten, 1);
        cr_assert_eq(count_files(space.store, "packs"), 1, "nothing was written");
        struct fl_rewrite_result result = compact_at(dead, false);
        cr_assert_eq(result.packs_rewritten, 1);
        cr_assert_eq(result.pages, needed);
        cr_assert_eq(result.pages_left_out, 400 - needed);
        cr_assert_eq(would.pages_left_out, result.pages_left_out);
        cr_assert_eq(collect_store(space.store, false, &collected), 0);
        cr_assert_eq(collected.packs_removed, 1);
        cr_assert_eq(collected.dead_bytes, 0);
        cr_assert_eq(unpack_file(space.store, "0", space.output), 0);
        cr_assert(same_files(memory[0], space.output));
        char path[256];
        struct total total = {0};
        cr_assert_eq(only_file(space.store, "packs", path, sizeof(path)), 0);
        add_pack(path, &total);
        cr_assert_eq(total.pages, needed);
        cr_assert_eq(total.zstd, i, "it keeps its codec");
        cr_assert_eq(compact_at(1, false).packs_rewritten, 0, "nothing is left to do");
        cr_assert_eq(pack_file(space.store, "again", memory[0], &packed), 0);
        cr_assert_eq(packed.stored_pages, 0, "the index knows the new places");
        remove_tree(space.store);
        unlink(space.output);
    }
}

// What a damaged image needs is not known.
Test(recompress, unreadable_image)
{
    char path[256];
    struct fl_rewrite_result result;
    const struct fl_compact_options options = {.percent = 1};
    make_dead((struct fl_compression){FL_CODEC_LZ4, 1});
    cr_assert_eq(make_pages(memory[1], 9000, 40), 0);
    cr_assert_eq(pack_file(space.store, "other", memory[1], NULL), 0);
    snprintf(path, sizeof(path), "%s/images/other.img", space.store);
    change_pack(path, 100);
    cr_assert_eq(compact(&options, &result), -EBADMSG);
    cr_assert(strstr(said.text, "'other'"), "%s", said.text);
    cr_assert_eq(count_files(space.store, "packs"), 2);
    result = recompress_all((struct fl_compression){FL_CODEC_ZSTD, 3});
    cr_assert_eq(result.images_left, 1);
    cr_assert_eq(result.packs_rewritten, 1, "those of the others");
    cr_assert_eq(count_files(space.store, "packs"), 3);
    change_pack(path, 100);
    cr_assert_eq(unpack_file(space.store, "other", space.output), 0);
    cr_assert(same_files(memory[1], space.output));
}

Test(recompress, two_unreadable_images)
{
    static const char *const bad[] = {"0", "1"};
    struct fl_rewrite_result result;
    for (int i = 0; i < 2; i++) {
        char path[256];
        cr_assert_eq(make_pages(memory[i], 1, 40), 0);
        cr_assert_eq(pack_file(space.store, bad[i], memory[i], NULL), 0);
        snprintf(path, sizeof(path), "%s/images/%s.img", space.store, bad[i]);
        change_pack(path, 100);
    }
    for (int i = 0; i < 2; i++) {
        const struct fl_recompress_options options = {
            .names = &bad[i], .names_count = 1, .compression = {FL_CODEC_ZSTD, 3}};
        cr_assert_eq(recompress(&options, &result), -EBADMSG, "each is damaged, none is missing");
    }
    cr_assert_eq(recompress_all((struct fl_compression){FL_CODEC_ZSTD, 3}).images_left, 2);
}

// --- what a killed run leaves ---

enum left { WHOLE, DAMAGED, UNTRUE, HELD };

// One pack was rewritten, and the list of its moves is there. Returns the list if it is held.
static struct fl_temp leave_moves(enum left how)
{
    struct fl_store *store = NULL;
    struct fl_needed needed = {.packs = NULL};
    struct fl_move move;
    struct fl_temp list;
    struct fl_pace pace = {.rate = 0};
    const struct fl_recode_options options = {
        .compression = {FL_CODEC_ZSTD, 3}, .threads = 1, .pace = &pace};
    cr_assert_eq(fl_store_open(space.store, false, &store, NULL), 0);
    cr_assert_eq(fl_needed_find(store, &needed), 0);
    cr_assert_eq(fl_recode(store, needed.packs[0], &options, &move), 0);
    if (how == UNTRUE) {
        struct fl_moved_frame first = move.frames[0];
        move.frames[0] = move.frames[1];
        move.frames[1] = first;
    }
    cr_assert_eq(fl_move_list_write(store, &move, 1, &list), 0);
    if (how == DAMAGED)
        cr_assert_eq(fl_pwrite_full(list.fd, "x", 1, 100), 0);
    if (how != HELD)
        fl_move_list_leave(&list);
    fl_move_end(&move);
    fl_needed_free(&needed);
    fl_store_close(store);
    return list;
}

Test(recompress, moves_of_a_killed_run_are_used_if_they_are_true)
{
    for (enum left how = WHOLE; how <= HELD; how++) {
        uint64_t state = test_seed();
        make_lineage(&state);
        struct fl_temp list = leave_moves(how);
        struct fl_rewrite_result result = recompress_all((struct fl_compression){FL_CODEC_ZSTD, 3});
        cr_assert_eq(result.packs_rewritten, 3);
        cr_assert_eq(count_files(space.store, "packs"), how == WHOLE ? 6 : 7, "%d", (int)how);
        // gc removes what is damaged; what belongs to another process is no business of others.
        cr_assert_eq(count_files(space.store, "tmp"), how == DAMAGED || how == HELD, "%d",
                     (int)how);
        if (how == HELD)
            fl_move_list_leave(&list);
        cr_assert_eq(collect_store(space.store, false, NULL), 0);
        cr_assert_eq(count_files(space.store, "packs"), 3);
        expect_sound(0);
        remove_tree(space.store);
    }
}

// --- estimates ---

Test(recompress, estimate_is_what_it_comes_to)
{
    struct fl_store *store;
    struct fl_codec_estimate estimates[FL_ESTIMATES];
    struct fl_image_detail detail;
    uint64_t frames = 0;
    cr_assert_eq(make_pages(memory[0], 1, 3 * FL_FRAME_PAGES), 0); // each frame is sampled
    cr_assert_eq(pack_file(space.store, "0", memory[0], NULL), 0);
    for (unsigned i = 0; i < FL_ESTIMATES; i++) {
        cr_assert_eq(fl_store_open(space.store, false, &store, NULL), 0);
        cr_assert_eq(fl_store_inspect_codecs(store, "0", estimates, &frames, NULL), 0);
        fl_store_close(store);
        cr_assert_eq(frames, 3);
        recompress_all(estimates[i].compression);
        cr_assert_eq(inspect_image(space.store, "0", &detail), 0);
        // Within the 2 % for which a pack is not written again.
        cr_assert_geq(estimates[i].stored_bytes, detail.stored_bytes - detail.stored_bytes / 49);
        cr_assert_leq(estimates[i].stored_bytes, detail.stored_bytes + detail.stored_bytes / 49);
    }
}
