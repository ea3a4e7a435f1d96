// SPDX-License-Identifier: Apache-2.0
//
// Packing from a live source: what comes, in whatever order, is what the image has, and what is as
// in the parent is not stored again.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/live_source.h"
#include "tests/unit/snapshot_support.h"

enum { CHUNK = 512 };
#define CHUNK_BYTES ((uint64_t)CHUNK * FL_PAGE_SIZE)

static struct workspace space;
static uint64_t state;
static char expected[128], plain_store[128];
static struct fl_pack_result parent;

static void setup(void)
{
    state = test_seed();
    cr_assert_eq(workspace_make(&space), 0);
    snprintf(expected, sizeof(expected), "%s/expected", space.dir);
    snprintf(plain_store, sizeof(plain_store), "%s/plain", space.dir);
}

static void teardown(void)
{
    workspace_remove(&space);
}

TestSuite(live, .init = setup, .fini = teardown, .timeout = 150);

static void make_parent(uint64_t bytes)
{
    cr_assert_eq(make_memory(space.memory, bytes, &state), 0);
    cr_assert_eq(pack_file(space.store, "parent", space.memory, &parent), 0);
}

static void expect_image(const char *name, const char *path)
{
    struct fl_image *image;
    uint64_t bad;
    cr_assert_eq(open_image(space.store, name, &image), 0);
    cr_assert(image_is_file(image, path), "%s", name);
    fl_image_unref(image);
    cr_assert_eq(unpack_file(space.store, name, space.output), 0);
    cr_assert(same_files(space.output, path), "%s", name);
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
}

// The content id is that of the same bytes packed from a file.
static void expect_content(const struct fl_pack_result *result, const char *path)
{
    struct fl_pack_result plain;
    cr_assert_eq(pack_file(plain_store, "plain", path, &plain), 0);
    cr_assert_arr_eq(result->content_id, plain.content_id, sizeof(plain.content_id));
    cr_assert_eq(result->pages, plain.pages);
    cr_assert_eq(result->zero_pages, plain.zero_pages);
    remove_tree(plain_store);
}

static void expect_all_read(const struct live_source *source)
{
    for (uint64_t page = 0; page < source->pages; page++)
        cr_assert(source->read[page], "page %lu", page);
    cr_assert_eq(source->twice, 0);
    cr_assert(!source->stopped);
    cr_assert_eq(source->published, 1);
}

static void pack_child(uint64_t bytes, struct live_mix mix, unsigned threads)
{
    struct live_source source;
    struct fl_pack_result result;
    cr_assert_eq(live_make(&source, space.memory, expected, bytes, mix, &state), 0);
    if (test_random(&state) % 3 == 0)
        source.live.ready = NULL; // it need not have it
    cr_assert_eq(
        live_pack(&source, space.store, "child", "parent", parent.content_id, threads, &result), 0);
    expect_all_read(&source);
    cr_assert_arr_eq(source.content_id, result.content_id, sizeof(result.content_id));
    cr_assert_eq(result.pages, result.zero_pages + result.duplicate_pages + result.shared_pages +
                                   result.stored_pages);
    cr_assert_leq(result.inherited_pages, result.shared_pages);
    expect_image("child", expected);
    expect_content(&result, expected);
    live_free(&source);
}

Test(live, pages_of_all_kinds_come_in_any_order)
{
    static const struct live_mix mixes[] = {{100, 60, 9}, {20, 20, 600}, {4, 2, 40},
                                            {250, 3, 3},  {3, 250, 100}, {0, 0, 1}};
    make_parent(5 * CHUNK_BYTES + 12345);
    for (size_t i = 0; i < sizeof(mixes) / sizeof(mixes[0]); i++) {
        pack_child(5 * CHUNK_BYTES + 12345, mixes[i], i % 2 ? 0 : 1);
        cr_assert_eq(remove_image(space.store, "child"), 0);
    }
}

// Of image and parent: both sides end within a page, at its end, and around a chunk.
Test(live, sizes_end_anywhere)
{
    static const uint64_t sizes[] = {1,
                                     FL_PAGE_SIZE - 1,
                                     FL_PAGE_SIZE,
                                     CHUNK_BYTES - FL_PAGE_SIZE,
                                     CHUNK_BYTES - 1,
                                     CHUNK_BYTES,
                                     CHUNK_BYTES + 1,
                                     CHUNK_BYTES + 3 * FL_PAGE_SIZE + 77};
    enum { COUNT = sizeof(sizes) / sizeof(sizes[0]) };
    for (unsigned of_parent = 0; of_parent < COUNT; of_parent++) {
        make_parent(sizes[of_parent]);
        for (unsigned of_child = 0; of_child < COUNT; of_child++) {
            pack_child(sizes[of_child], (struct live_mix){60, 30, 50}, 0);
            cr_assert_eq(remove_image(space.store, "child"), 0);
        }
        cr_assert_eq(remove_image(space.store, "parent"), 0);
    }
}

// The engine copies only so far ahead of what was read.
Test(live, what_is_there_is_read_before_more_is_awaited)
{
    struct live_source source;
    struct fl_pack_result result;
    make_parent(12 * CHUNK_BYTES);
    cr_assert_eq(live_make(&source, space.memory, expected, 12 * CHUNK_BYTES,
                           (struct live_mix){3, 2, 4}, &state),
                 0);
    source.in_turn = true;
    cr_assert_eq(live_pack(&source, space.store, "child", "parent", parent.content_id, 0, &result),
                 0);
    expect_all_read(&source);
    expect_image("child", expected);
    live_free(&source);
}

Test(live, without_a_parent_all_pages_come)
{
    struct live_source source;
    struct fl_pack_result result;
    cr_assert_eq(live_make(&source, NULL, expected, 3 * CHUNK_BYTES + 5000,
                           (struct live_mix){150, 106, 30}, &state),
                 0);
    cr_assert_eq(live_pack(&source, space.store, "child", NULL, NULL, 0, &result), 0);
    expect_all_read(&source);
    cr_assert_eq(result.inherited_pages, 0);
    expect_image("child", expected);
    expect_content(&result, expected);
    live_free(&source);
}

Test(live, a_page_of_no_parent_is_an_error)
{
    struct live_source source;
    struct fl_pack_result result;
    cr_assert_eq(
        live_make(&source, NULL, expected, CHUNK_BYTES, (struct live_mix){250, 6, 30}, &state), 0);
    source.kind[300] = FL_LIVE_PARENT;
    cr_assert_eq(live_pack(&source, space.store, "child", NULL, NULL, 0, &result), -EINVAL);
    cr_assert_eq(count_files(space.store, "images"), 0);
    live_free(&source);
}

Test(live, what_does_not_change_is_not_stored)
{
    struct live_source source;
    struct fl_pack_result result;
    make_parent(4 * CHUNK_BYTES);
    int packs = count_files(space.store, "packs");
    cr_assert_eq(live_make(&source, space.memory, expected, 4 * CHUNK_BYTES,
                           (struct live_mix){0, 0, 1}, &state),
                 0);
    cr_assert_eq(live_pack(&source, space.store, "child", "parent", parent.content_id, 0, &result),
                 0);
    cr_assert_eq(result.stored_pages, 0);
    cr_assert_eq(result.pack_id, 0);
    cr_assert_eq(result.inherited_pages + result.zero_pages, result.pages);
    cr_assert_arr_eq(result.content_id, parent.content_id, sizeof(parent.content_id));
    cr_assert_eq(count_files(space.store, "packs"), packs);
    expect_image("child", expected);
    // It stands by itself: the parent may go.
    cr_assert_eq(remove_image(space.store, "parent"), 0);
    cr_assert_eq(collect_store(space.store, false, NULL), 0);
    expect_image("child", expected);
    live_free(&source);
}

static void expect_failure(uint64_t fail_at, int error)
{
    struct live_source source;
    struct fl_pack_result result;
    int packs = count_files(space.store, "packs");
    cr_assert_eq(live_make(&source, space.memory, expected, 5 * CHUNK_BYTES,
                           (struct live_mix){90, 60, 20}, &state),
                 0);
    source.fail_at = fail_at;
    source.fail_with = error;
    cr_assert_eq(live_pack(&source, space.store, "child", "parent", parent.content_id, 0, &result),
                 error);
    cr_assert(source.stopped);
    cr_assert_eq(source.twice, 0);
    cr_assert_eq(source.published, 0);
    cr_assert_eq(count_files(space.store, "packs"), packs);
    cr_assert_eq(count_files(space.store, "images"), 1);
    cr_assert_eq(count_files(space.store, "tmp"), 0);
    live_free(&source);
}

Test(live, an_error_of_await_ends_it_and_leaves_nothing)
{
    static const int errors[] = {-EPIPE, -ECANCELED, -ESTALE, -EBADMSG, -ENOENT, -EEXIST, -EIO};
    make_parent(5 * CHUNK_BYTES);
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        expect_failure(test_random(&state) % (5 * CHUNK), errors[i]);
    expect_failure(0, -EPIPE);
    expect_failure(5 * CHUNK - 1, -EPIPE);
    pack_child(5 * CHUNK_BYTES, (struct live_mix){90, 60, 20}, 0);
}

// Otherwise a command that is interrupted would wait for pages that never come.
static int cancel(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    (void)done;
    (void)total;
    return 1;
}

Test(live, to_cancel_it_does_not_wait_for_pages)
{
    struct live_source source;
    struct fl_pack_result result;
    struct fl_store *store;
    struct fl_error error;
    make_parent(3 * CHUNK_BYTES);
    cr_assert_eq(live_make(&source, space.memory, expected, 3 * CHUNK_BYTES,
                           (struct live_mix){90, 60, 20}, &state),
                 0);
    source.live.parent = "parent";
    source.live.parent_content_id = parent.content_id;
    struct fl_pack_options options = {
        .name = "child", .live = &source.live, .progress = {.fn = cancel}};
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0);
    cr_assert_eq(fl_store_pack(store, &options, &result, &error), -ECANCELED); // no page comes
    fl_store_close(store);
    cr_assert(source.stopped);
    cr_assert_eq(count_files(space.store, "images"), 1);
    cr_assert_eq(count_files(space.store, "tmp"), 0);
    live_free(&source);
}

// Each child is of the one before. However long the chain is, a child reads about as well as one
// that is packed anew, and what is stored again is bounded.
Test(live, a_chain_of_children_stays_short_to_read)
{
    enum { CHAIN = 90, PAGES = 3 * CHUNK };
    char name[2][16] = {"parent", ""};
    char files[2][128];
    uint8_t content[32];
    uint64_t stored = 0;
    uint64_t written = 0;
    struct fl_image_detail detail;
    cr_assert_eq(make_pages(space.memory, 1, PAGES), 0);
    cr_assert_eq(pack_file(space.store, "parent", space.memory, &parent), 0);
    memcpy(content, parent.content_id, sizeof(content));
    for (int i = 0; i < 2; i++)
        snprintf(files[i], sizeof(files[i]), "%s/chain-%d", space.dir, i);
    for (int i = 0; i < CHAIN; i++) {
        struct live_source source;
        struct fl_pack_result result;
        const char *from = i == 0 ? space.memory : files[(i + 1) % 2];
        snprintf(name[(i + 1) % 2], sizeof(name[0]), "child-%d", i);
        cr_assert_eq(live_make(&source, from, files[i % 2], PAGES * FL_PAGE_SIZE,
                               (struct live_mix){3, 0, 1}, &state),
                     0);
        for (uint64_t page = 0; page < PAGES; page++)
            written += source.kind[page] == FL_LIVE_DATA;
        cr_assert_eq(
            live_pack(&source, space.store, name[(i + 1) % 2], name[i % 2], content, 0, &result),
            0);
        memcpy(content, result.content_id, sizeof(content));
        stored += result.stored_pages;
        live_free(&source);
        cr_assert_eq(inspect_image(space.store, name[(i + 1) % 2], &detail), 0);
        cr_assert_leq(detail.range_frames_max, 64, "generation %d", i);
        cr_assert_leq(detail.frame_pages, PAGES * 5 / 4, "generation %d", i);
        cr_assert_leq(detail.info.packs, 70, "generation %d", i);
        cr_assert_str_eq(detail.info.parent, name[i % 2]);
        if (i > 1)
            cr_assert_eq(remove_image(space.store, name[i % 2]), 0);
    }
    cr_assert_leq(stored, 7 * written);
    expect_image(name[CHAIN % 2], files[(CHAIN + 1) % 2]);
}

static int try_child(const uint8_t *content_id, void (*before)(void *arg, uint64_t first))
{
    struct live_source source;
    struct fl_pack_result result;
    cr_assert_eq(live_make(&source, space.memory, expected, 4 * CHUNK_BYTES,
                           (struct live_mix){40, 20, 90}, &state),
                 0);
    source.before = before;
    int r = live_pack(&source, space.store, "child", "parent", content_id, 0, &result);
    live_free(&source);
    return r;
}

Test(live, a_parent_that_is_gone_or_another_is_refused)
{
    uint8_t other[32];
    make_parent(4 * CHUNK_BYTES);
    memcpy(other, parent.content_id, sizeof(other));
    other[31] ^= 1;
    cr_assert_eq(try_child(other, NULL), -ESTALE);
    cr_assert_eq(remove_image(space.store, "parent"), 0);
    cr_assert_eq(try_child(parent.content_id, NULL), -ENOENT);
    cr_assert_eq(count_files(space.store, "images"), 0);
    cr_assert_eq(count_files(space.store, "tmp"), 0);
}

static void remove_parent(void *arg, uint64_t first)
{
    (void)arg;
    if (first == CHUNK)
        cr_assert_eq(remove_image(space.store, "parent"), 0);
}

Test(live, a_parent_that_is_removed_meanwhile_is_read_to_its_end)
{
    make_parent(4 * CHUNK_BYTES);
    cr_assert_eq(try_child(parent.content_id, remove_parent), 0);
    expect_image("child", expected);
    cr_assert_eq(collect_store(space.store, false, NULL), 0);
    expect_image("child", expected);
}

// --- the trace of the parent ---

static int record(const char *name, const uint64_t *pages, unsigned count)
{
    struct fl_trace_entry entries[8] = {{0}};
    const struct fl_recording recording = {.entries = entries, .count = count};
    for (unsigned i = 0; i < count; i++)
        entries[i] = (struct fl_trace_entry){.page = pages[i], .ms = i};
    return merge_trace(space.store, name, &recording, 1, false);
}

// Its trace has these pages, in this order; without pages it has none.
static void expect_trace(const char *name, const uint64_t *pages, unsigned count)
{
    struct fl_recording recording;
    struct fl_image_detail detail;
    cr_assert_eq(inspect_image(space.store, name, &detail), 0);
    cr_assert_eq(detail.trace.state, count > 0 ? FL_TRACE_GOOD : FL_TRACE_NONE);
    cr_assert_eq(detail.trace.pages, count);
    if (count == 0)
        return;
    cr_assert_eq(read_trace(space.store, name, &recording), 0);
    for (unsigned i = 0; i < count; i++)
        cr_assert_eq(recording.entries[i].page, pages[i]);
    fl_recording_free(&recording);
}

static uint64_t inherit(const char *name, uint64_t bytes)
{
    struct live_source source;
    struct fl_pack_result result;
    cr_assert_eq(
        live_make(&source, space.memory, expected, bytes, (struct live_mix){40, 20, 9}, &state), 0);
    cr_assert_eq(live_pack(&source, space.store, name, "parent", parent.content_id, 0, &result), 0);
    cr_assert_eq(result.trace_error, 0);
    live_free(&source);
    return result.trace_pages;
}

Test(live, a_child_begins_with_the_trace_of_its_parent)
{
    static const uint64_t pages[] = {700, 3, CHUNK, 1000, 0};
    static const uint64_t early[] = {3, CHUNK - 1};
    make_parent(2 * CHUNK_BYTES);
    cr_assert_eq(inherit("before", 2 * CHUNK_BYTES), 0);
    cr_assert_eq(record("parent", pages, 5), 0);
    cr_assert_eq(inherit("child", 2 * CHUNK_BYTES), 5);
    cr_assert_eq(inherit("shorter", CHUNK_BYTES), 2);
    expect_trace("before", NULL, 0);
    expect_trace("child", pages, 5);
    expect_trace("shorter", (const uint64_t[]){3, 0}, 2);
    // It is the child's from then on, and the parent's stays as it is.
    cr_assert_eq(record("child", early, 2), 0);
    expect_trace("parent", pages, 5);
    expect_trace("child", (const uint64_t[]){3, 700, CHUNK, CHUNK - 1, 1000, 0}, 6);
}

Test(live, a_trace_of_other_content_is_not_inherited)
{
    static const uint64_t pages[] = {5, 6};
    make_parent(CHUNK_BYTES);
    struct fl_store *store;
    struct fl_error error;
    struct fl_pack_options again = {.name = "parent", .replace = true, .path = space.memory};
    cr_assert_eq(record("parent", pages, 2), 0);
    cr_assert_eq(make_memory(space.memory, CHUNK_BYTES, &state), 0);
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0);
    cr_assert_eq(fl_store_pack(store, &again, &parent, &error), 0);
    fl_store_close(store);
    cr_assert_eq(inherit("child", CHUNK_BYTES), 0);
    expect_trace("child", NULL, 0);
}
