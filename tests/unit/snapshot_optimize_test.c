// SPDX-License-Identifier: Apache-2.0
//
// Laying an image out by its trace: no byte of it changes, no cold page moves, and its working set
// is one piece of one file.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/io.h"
#include "tests/unit/snapshot_support.h"

enum { PAGES = 6000, TOUCHED = 2000 };

static struct workspace space;

static void setup(void)
{
    cr_assert_eq(workspace_make(&space), 0);
}

static void teardown(void)
{
    workspace_remove(&space);
}

TestSuite(optimize, .init = setup, .fini = teardown, .timeout = 170);

// Memory of every kind, and a trace of clusters of it, as guests touch theirs.
static void make_random(uint64_t *state)
{
    struct fl_trace_entry *touches = calloc(TOUCHED, sizeof(*touches));
    uint64_t page = 0;
    cr_assert_eq(make_memory(space.memory, (uint64_t)PAGES * FL_PAGE_SIZE - 5, state), 0);
    cr_assert_eq(pack_file(space.store, "image", space.memory, NULL), 0);
    for (uint32_t i = 0; i < TOUCHED; i++) {
        page = test_random(state) % 4 ? (page + 1) % PAGES : test_random(state) % PAGES;
        touches[i] = (struct fl_trace_entry){.page = page, .ms = i};
    }
    const struct fl_recording one = {.entries = touches, .count = TOUCHED};
    cr_assert_eq(merge_trace(space.store, "image", &one, 1, true), 0);
    free(touches);
}

struct attempt {
    bool dry_run;
    int (*fn)(void *arg, uint64_t done, uint64_t total); // called while it is done
    struct fl_optimize_result result;
};

static int optimize(struct attempt *attempt)
{
    struct fl_store *store = NULL;
    struct fl_error error = {""};
    struct fl_optimize_options options = {
        .name = "image", .dry_run = attempt->dry_run, .progress = {.fn = attempt->fn}};
    int r = fl_store_open(space.store, false, &store, &error);
    if (r == 0)
        r = fl_store_optimize(store, &options, &attempt->result, &error);
    fl_store_close(store);
    if (r < 0)
        fprintf(stderr, "%s\n", error.text);
    return r;
}

static void expect_sound(void)
{
    uint64_t bad;
    struct fl_image *image;
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
    cr_assert_eq(open_image(space.store, "image", &image), 0);
    cr_assert(image_is_file(image, space.memory));
    fl_image_unref(image);
    cr_assert_eq(unpack_file(space.store, "image", space.output), 0);
    cr_assert(same_files(space.memory, space.output));
    cr_assert_eq(count_files(space.store, "tmp"), 0);
}

static bool *traced_pages(struct fl_trace **ret_trace)
{
    bool *traced = calloc(PAGES, sizeof(*traced));
    cr_assert_eq(open_trace(space.store, "image", ret_trace), 0);
    for (uint64_t i = 0; i < fl_trace_count(*ret_trace); i++)
        traced[fl_trace_entries(*ret_trace)[i].page] = true;
    return traced;
}

static bool same_place(const struct fl_run *left, const struct fl_run *right)
{
    return left->zero == right->zero && left->slot == right->slot &&
           left->id.pack == right->id.pack && left->id.frame == right->id.frame;
}

// Cold pages and zero pages are where they were; the others are in one pack, whose frames follow
// the order of replay.
static void expect_layout(const struct fl_image *before, const struct fl_image *after)
{
    struct fl_trace *trace = NULL;
    bool *traced = traced_pages(&trace);
    uint64_t hot_pack = 0;
    uint32_t frame = 0;
    for (uint64_t page = 0; page < PAGES; page++) {
        struct fl_run old = fl_image_run(before, page, 1);
        struct fl_run now = fl_image_run(after, page, 1);
        if (!traced[page] || old.zero)
            cr_assert(same_place(&old, &now), "page %lu", page);
        else
            cr_assert_neq(old.id.pack, now.id.pack, "page %lu", page);
    }
    for (uint64_t i = 0; i < fl_trace_count(trace); i++) {
        struct fl_run now = fl_image_run(after, fl_trace_entries(trace)[i].page, 1);
        if (now.zero)
            continue;
        hot_pack = hot_pack ? hot_pack : now.id.pack;
        cr_assert_eq(now.id.pack, hot_pack);
        cr_assert_leq(now.id.frame, frame + 1, "no frame is left out");
        frame = now.id.frame > frame ? now.id.frame : frame;
    }
    free(traced);
    fl_trace_unref(trace);
}

Test(optimize, no_byte_changes_and_no_cold_page_moves)
{
    uint64_t state = test_seed();
    for (int round = 0; round < 4; round++) {
        struct attempt attempt = {.fn = NULL};
        struct fl_image *before;
        struct fl_image *after;
        make_random(&state);
        cr_assert_eq(open_image(space.store, "image", &before), 0);
        cr_assert_eq(optimize(&attempt), 0);
        cr_assert_not(attempt.result.already);
        cr_assert_eq(open_image(space.store, "image", &after), 0);
        cr_assert_eq(memcmp(fl_image_content_id(before), fl_image_content_id(after), 32), 0);
        expect_layout(before, after);
        expect_sound();
        // Whoever has the old one open goes on with it, even when the store is collected.
        cr_assert_eq(collect_store(space.store, false, NULL), 0);
        cr_assert(image_is_file(before, space.memory));
        fl_image_unref(before);
        fl_image_unref(after);
        cr_assert_eq(remove_image(space.store, "image"), 0);
        cr_assert_eq(collect_store(space.store, false, NULL), 0);
        cr_assert_eq(count_files(space.store, "packs"), 0);
    }
}

// Of memory of every kind it holds that the working set fills its frames, whatever it cost before:
// where many pages are the same, that may have been fewer.
Test(optimize, replay_reads_one_piece)
{
    uint64_t state = test_seed();
    struct attempt attempt = {.fn = NULL};
    make_random(&state);
    cr_assert_eq(optimize(&attempt), 0);
    const struct fl_optimize_result *result = &attempt.result;
    cr_assert_eq(result->after.pieces, 1);
    cr_assert_eq(result->after.frames, (result->after.pages + 15) / 16);
    cr_assert_eq(result->after.pages, result->before.pages);
    cr_assert_eq(result->zero_pages + result->after.pages, result->trace_pages);
    cr_assert_gt(result->stored_bytes, result->after.bytes, "and its tables");
    cr_assert_eq(count_files(space.store, "packs"), 2);
}

static void read_file(const char *path, uint8_t **ret_bytes, uint64_t *ret_len)
{
    FL_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_eq(fl_file_size(fd, ret_len), 0);
    *ret_bytes = malloc(*ret_len);
    cr_assert_eq(fl_pread_full(fd, *ret_bytes, *ret_len, 0), 0);
}

Test(optimize, doing_it_again_changes_nothing)
{
    uint64_t state = test_seed();
    struct attempt attempt = {.fn = NULL};
    char path[256];
    uint8_t *first;
    uint8_t *second;
    uint64_t first_len;
    uint64_t second_len;
    make_random(&state);
    snprintf(path, sizeof(path), "%s/images/image.img", space.store);
    cr_assert_eq(optimize(&attempt), 0);
    read_file(path, &first, &first_len);
    cr_assert_eq(optimize(&attempt), 0);
    cr_assert(attempt.result.already);
    cr_assert_eq(attempt.result.stored_bytes, 0);
    cr_assert_eq(attempt.result.after.pieces, 1);
    read_file(path, &second, &second_len);
    cr_assert_eq(first_len, second_len);
    cr_assert_eq(memcmp(first, second, first_len), 0);
    cr_assert_eq(count_files(space.store, "packs"), 2);
    free(first);
    free(second);
}

static void record(const uint64_t *pages, uint64_t count, bool replace)
{
    struct fl_trace_entry touches[64];
    for (uint64_t i = 0; i < count; i++)
        touches[i] = (struct fl_trace_entry){.page = pages[i], .ms = (uint32_t)i};
    const struct fl_recording one = {.entries = touches, .count = count};
    cr_assert_eq(merge_trace(space.store, "image", &one, 1, replace), 0);
}

static void make_plain(void)
{
    static const uint64_t pages[] = {500, 3, 900, 4, 20};
    cr_assert_eq(make_pages(space.memory, 1, 1000), 0);
    cr_assert_eq(pack_file(space.store, "image", space.memory, NULL), 0);
    record(pages, 5, true);
}

// Five pages of four frames: one frame, and one piece of the file.
Test(optimize, scattered_pages_cost_less)
{
    struct attempt attempt = {.fn = NULL};
    make_plain();
    cr_assert_eq(optimize(&attempt), 0);
    cr_assert_eq(attempt.result.before.pages, 5);
    cr_assert_eq(attempt.result.before.frames, 4, "3 and 4 share one");
    cr_assert_gt(attempt.result.before.pieces, 1);
    cr_assert_eq(attempt.result.after.frames, 1);
    cr_assert_eq(attempt.result.after.pieces, 1);
    cr_assert_lt(attempt.result.after.bytes, attempt.result.before.bytes);
}

// What is in the trace no more stays where it is; a pack that nobody needs any more goes.
Test(optimize, a_trace_that_has_grown_is_laid_out_anew)
{
    static const uint64_t more[] = {77, 500};
    struct attempt attempt = {.fn = NULL};
    struct fl_gc_result collected;
    make_plain();
    cr_assert_eq(optimize(&attempt), 0);
    record(more, 2, false);
    cr_assert_eq(optimize(&attempt), 0);
    cr_assert_not(attempt.result.already);
    cr_assert_eq(attempt.result.after.pages, 6);
    cr_assert_eq(attempt.result.after.pieces, 1);
    expect_sound();
    cr_assert_eq(collect_store(space.store, false, &collected), 0);
    cr_assert_eq(collected.packs_removed, 1);
    expect_sound();
}

// Sharing would break the run: each page has a slot of its own.
Test(optimize, a_page_that_comes_twice_breaks_no_run)
{
    static const uint64_t pages[] = {10, 11, 12, 40, 41};
    struct attempt attempt = {.fn = NULL};
    char page[FL_PAGE_SIZE];
    cr_assert_eq(make_pages(space.memory, 1, 50), 0);
    FL_AUTO_CLOSE int fd = open(space.memory, O_RDWR | O_CLOEXEC);
    cr_assert_eq(fl_pread_full(fd, page, sizeof(page), UINT64_C(10) * FL_PAGE_SIZE), 0);
    cr_assert_eq(fl_pwrite_full(fd, page, sizeof(page), UINT64_C(40) * FL_PAGE_SIZE), 0);
    cr_assert_eq(pack_file(space.store, "image", space.memory, NULL), 0);
    record(pages, 5, true);
    cr_assert_eq(optimize(&attempt), 0);
    cr_assert_eq(attempt.result.before.runs, 3);
    cr_assert_eq(attempt.result.after.runs, 2);
    cr_assert_eq(attempt.result.after.frames, 1);
    expect_sound();
    cr_assert_eq(optimize(&attempt), 0);
    cr_assert(attempt.result.already);
}

Test(optimize, zero_pages_alone_need_nothing)
{
    static const uint64_t pages[] = {1, 2};
    struct attempt attempt = {.fn = NULL};
    cr_assert_eq(make_pages(space.memory, 1, 1), 0);
    int r = truncate(space.memory, 10L * FL_PAGE_SIZE);
    cr_assert_eq(r, 0);
    cr_assert_eq(pack_file(space.store, "image", space.memory, NULL), 0);
    record(pages, 2, true);
    cr_assert_eq(optimize(&attempt), 0);
    cr_assert(attempt.result.already);
    cr_assert_eq(attempt.result.zero_pages, 2);
    expect_sound();
}

// Images that are packed later share the places beside their neighbours, not those of the trace.
Test(optimize, later_images_share_the_cold_places)
{
    struct attempt attempt = {.fn = NULL};
    struct fl_image_detail detail;
    struct fl_pack_result packed;
    make_plain();
    cr_assert_eq(optimize(&attempt), 0);
    cr_assert_eq(pack_file(space.store, "later", space.memory, &packed), 0);
    cr_assert_eq(packed.shared_pages, 1000);
    cr_assert_eq(inspect_image(space.store, "later", &detail), 0);
    cr_assert_eq(detail.info.packs, 1);
}

Test(optimize, without_a_trace_it_is_refused)
{
    struct attempt attempt = {.fn = NULL};
    cr_assert_eq(optimize(&attempt), -ENOENT, "no store");
    make_plain();
    cr_assert_eq(remove_trace(space.store, "image"), 0);
    cr_assert_eq(optimize(&attempt), -ENOENT);
    cr_assert_eq(remove_image(space.store, "image"), 0);
    cr_assert_eq(optimize(&attempt), -ENOENT);
}

static int cancel(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    (void)done;
    (void)total;
    return 1;
}

Test(optimize, interrupted_it_leaves_the_image_as_it_was)
{
    struct attempt attempt = {.fn = cancel};
    make_plain();
    cr_assert_eq(optimize(&attempt), -ECANCELED);
    cr_assert_eq(count_files(space.store, "packs"), 1);
    expect_sound();
}

static int remove_meanwhile(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    if (done == total)
        remove_image(space.store, "image");
    return 0;
}

Test(optimize, an_image_removed_meanwhile_does_not_come_back)
{
    struct attempt attempt = {.fn = remove_meanwhile};
    make_plain();
    cr_assert_eq(optimize(&attempt), -ESTALE);
    cr_assert_eq(count_files(space.store, "images"), 0);
    cr_assert_eq(count_files(space.store, "packs"), 1);
    cr_assert_eq(count_files(space.store, "tmp"), 0);
}

static int replace_meanwhile(void *arg, uint64_t done, uint64_t total)
{
    struct fl_store *store;
    struct fl_pack_result result;
    struct fl_pack_options options = {.name = "image", .path = space.memory, .replace = true};
    (void)arg;
    if (done < total)
        return 0;
    cr_assert_eq(make_pages(space.memory, 5000, 30), 0);
    cr_assert_eq(fl_store_open(space.store, false, &store, NULL), 0);
    cr_assert_eq(fl_store_pack(store, &options, &result, NULL), 0);
    fl_store_close(store);
    return 0;
}

Test(optimize, an_image_replaced_meanwhile_stays_the_new_one)
{
    struct attempt attempt = {.fn = replace_meanwhile};
    make_plain();
    cr_assert_eq(optimize(&attempt), -ESTALE);
    expect_sound();
    cr_assert_eq(count_files(space.store, "packs"), 2);
    cr_assert_eq(optimize(&attempt), -ESTALE, "the trace is of other content");
}

// A byte of a frame is changed: it must not come under a checksum that is right.
Test(optimize, damage_is_not_laundered)
{
    struct attempt attempt = {.fn = NULL};
    char path[256];
    uint8_t byte;
    make_plain();
    cr_assert_eq(only_file(space.store, "packs", path, sizeof(path)), 0);
    FL_AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_eq(fl_pread_full(fd, &byte, 1, 40), 0);
    byte ^= 1;
    cr_assert_eq(fl_pwrite_full(fd, &byte, 1, 40), 0);
    cr_assert_eq(optimize(&attempt), -EBADMSG);
    cr_assert_eq(count_files(space.store, "packs"), 1);
    cr_assert_eq(count_files(space.store, "tmp"), 0);
}

// Bytes that this process has given to write() and its kind.
static uint64_t written_bytes(void)
{
    char line[64];
    uint64_t bytes = 0;
    FILE *file = fopen("/proc/self/io", "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "wchar: ", 7) == 0)
            bytes = strtoull(line + 7, NULL, 10);
    }
    if (file)
        fclose(file);
    return bytes;
}

static void expect_agreement(const struct fl_optimize_result *said,
                             const struct fl_optimize_result *done, uint64_t written)
{
    cr_expect_eq(said->trace_pages, done->trace_pages);
    cr_expect_eq(said->zero_pages, done->zero_pages);
    cr_expect_eq(memcmp(&said->before, &done->before, sizeof(said->before)), 0);
    cr_expect_eq(said->after.pages, done->after.pages);
    cr_expect_eq(said->after.frames, done->after.frames);
    cr_expect_eq(said->after.pieces, done->after.pieces);
    cr_expect_eq(said->after.runs, done->after.runs);
    cr_expect_eq(said->after.frame_pages, done->after.frame_pages);
    // What is an estimate is near; what is a bound is one.
    cr_expect_lt(said->stored_bytes, 2 * done->stored_bytes);
    cr_expect_gt(2 * said->stored_bytes, done->stored_bytes);
    cr_expect_leq(done->stored_bytes, said->estimate.stored_bytes_max);
    cr_expect_leq(done->image_bytes, said->image_bytes);
    cr_expect_leq(written, said->estimate.write_bytes_max);
    cr_expect_geq(2 * written, said->estimate.write_bytes_max,
                  "it is no bound that says something");
    cr_expect_geq(said->estimate.read_bytes, done->before.bytes);
    cr_expect_gt(said->estimate.free_bytes, 0);
}

Test(optimize, a_dry_run_says_what_it_will_cost_and_gain)
{
    uint64_t state = test_seed();
    for (int round = 0; round < 4; round++) {
        struct attempt dry = {.dry_run = true};
        struct attempt real = {.fn = NULL};
        make_random(&state);
        cr_assert_eq(optimize(&dry), 0);
        cr_assert(dry.result.dry_run && !dry.result.already);
        uint64_t written = written_bytes();
        cr_assert_eq(optimize(&real), 0);
        cr_assert_not(real.result.already, "the dry run has done it");
        expect_agreement(&dry.result, &real.result, written_bytes() - written);
        cr_assert_eq(optimize(&dry), 0);
        cr_assert(dry.result.already);
        cr_assert_eq(remove_image(space.store, "image"), 0);
    }
}
