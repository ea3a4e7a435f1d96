// SPDX-License-Identifier: Apache-2.0
//
// Traces: what is merged comes back, in the order that docs/store-format.md promises, whatever the
// order of merging; and a trace is of one content. What its file may hold:
// snapshot_trace_damage_test.c.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "snapshot/io.h"
#include "tests/unit/snapshot_support.h"

enum { PAGES = 300, RECORDINGS = 5 };

static struct workspace space;
static char trace_path[256];

static void setup(void)
{
    cr_assert_eq(workspace_make(&space), 0);
    cr_assert_eq(make_pages(space.memory, 1, PAGES), 0);
    cr_assert_eq(pack_file(space.store, "image", space.memory, NULL), 0);
    snprintf(trace_path, sizeof(trace_path), "%s/traces/image.trace", space.store);
}

static void teardown(void)
{
    workspace_remove(&space);
}

TestSuite(trace, .init = setup, .fini = teardown, .timeout = 110);

static int merge(const struct fl_recording *recordings, unsigned count, bool replace)
{
    return merge_trace(space.store, "image", recordings, count, replace);
}

static struct fl_trace *the_trace(void)
{
    struct fl_trace *trace = NULL;
    cr_assert_eq(open_trace(space.store, "image", &trace), 0);
    return trace;
}

// The entries as they were merged; who replays has them in windows.
static struct fl_recording the_order(void)
{
    struct fl_recording order = {.count = 0};
    cr_assert_eq(read_trace(space.store, "image", &order), 0);
    return order;
}

static uint32_t the_runs(void)
{
    struct fl_trace *trace = the_trace();
    uint32_t runs = fl_trace_runs(trace);
    fl_trace_unref(trace);
    return runs;
}

// A recording with room for each page twice.
struct touches {
    struct fl_trace_entry entries[2 * PAGES];
    uint64_t count;
};

static void touch(struct touches *touches, uint64_t page)
{
    touches->entries[touches->count] =
        (struct fl_trace_entry){.page = page, .ms = (uint32_t)(10 * touches->count)};
    touches->count++;
}

static struct fl_recording recording(const struct touches *touches)
{
    return (struct fl_recording){.entries = touches->entries, .count = touches->count};
}

static struct touches touches_of(const uint64_t *pages, uint64_t count)
{
    struct touches touches = {.count = 0};
    for (uint64_t i = 0; i < count; i++)
        touch(&touches, pages[i]);
    return touches;
}

static void expect_pages(const uint64_t *pages, uint64_t count)
{
    struct fl_recording order = the_order();
    cr_assert_eq(order.count, count);
    for (uint64_t i = 0; i < count; i++)
        cr_assert_eq(order.entries[i].page, pages[i], "entry %lu", i);
    fl_recording_free(&order);
}

#define COUNT(ARRAY) (sizeof(ARRAY) / sizeof((ARRAY)[0]))

Test(trace, there_is_none_at_first)
{
    struct fl_trace *trace;
    struct fl_image_detail detail;
    cr_assert_eq(open_trace(space.store, "image", &trace), -ENOENT);
    cr_assert_eq(inspect_image(space.store, "image", &detail), 0);
    cr_assert_eq(detail.trace.state, FL_TRACE_NONE);
    cr_assert_eq(remove_trace(space.store, "image"), -ENOENT);
}

Test(trace, a_raw_memory_file_has_none)
{
    struct fl_reader *reader;
    struct fl_image *image;
    struct fl_trace *trace;
    cr_assert_eq(fl_reader_open(space.store, &reader), 0);
    cr_assert_eq(fl_image_open_raw(space.memory, &image), 0);
    cr_assert_null(fl_image_content_id(image));
    cr_assert_eq(fl_trace_open(reader, image, &trace), -ENOENT);
    fl_image_unref(image);
    fl_reader_close(reader);
}

Test(trace, one_recording_comes_back_as_it_was)
{
    static const uint64_t pages[] = {200, 7, 299, 0, 8};
    struct touches touches = touches_of(pages, COUNT(pages));
    struct fl_recording one = recording(&touches);
    struct fl_image_detail detail;
    cr_assert_eq(merge(&one, 1, false), 0);
    struct fl_recording order = the_order();
    for (uint64_t i = 0; i < COUNT(pages); i++) {
        cr_assert_eq(order.entries[i].ms, 10 * i);
        cr_assert_eq(order.entries[i].seen, 1);
    }
    fl_recording_free(&order);
    struct fl_trace *trace = the_trace();
    fl_trace_unref(fl_trace_ref(trace));
    cr_assert_eq(fl_trace_count(trace), COUNT(pages));
    fl_trace_unref(trace);
    expect_pages(pages, COUNT(pages));
    cr_assert_eq(inspect_image(space.store, "image", &detail), 0);
    cr_assert_eq(detail.trace.state, FL_TRACE_GOOD);
    cr_assert_eq(detail.trace.pages, COUNT(pages));
    cr_assert_eq(detail.trace.runs, 1);
    cr_assert_eq(count_files(space.store, "tmp"), 0);
}

Test(trace, a_page_counts_where_it_was_touched_first)
{
    static const uint64_t pages[] = {5, 6, 5, 7, 6, 8};
    static const uint64_t once[] = {5, 6, 7, 8};
    struct touches touches = touches_of(pages, COUNT(pages));
    struct fl_recording one = recording(&touches);
    cr_assert_eq(merge(&one, 1, false), 0);
    expect_pages(once, COUNT(once));
    struct fl_recording order = the_order();
    cr_assert_eq(order.entries[0].ms, 0);
    cr_assert_eq(order.entries[0].seen, 1);
    fl_recording_free(&order);
}

Test(trace, what_more_recordings_have_comes_first)
{
    static const uint64_t first[] = {1, 2, 3};
    static const uint64_t second[] = {9, 3, 2};
    static const uint64_t third[] = {3, 4};
    // 1 and 9 were both the first of three; 4 was in the middle of its recording.
    static const uint64_t merged[] = {3, 2, 1, 9, 4};
    struct touches touches[] = {touches_of(first, 3), touches_of(second, 3), touches_of(third, 2)};
    struct fl_recording all[] = {recording(&touches[0]), recording(&touches[1]),
                                 recording(&touches[2])};
    cr_assert_eq(merge(all, 3, false), 0);
    cr_assert_eq(the_runs(), 3);
    struct fl_recording order = the_order();
    cr_assert_eq(order.entries[0].seen, 3);
    cr_assert_eq(order.entries[0].ms, (20 + 10 + 0) / 3);
    cr_assert_eq(order.entries[1].seen, 2);
    cr_assert_eq(order.entries[2].seen, 1);
    fl_recording_free(&order);
    expect_pages(merged, COUNT(merged));
}

// A recording of a hundred pages and one of two: in both, 250 is in the first half and 251 at the
// end. Were places not shares of the recording, the longer one alone would decide.
Test(trace, a_longer_recording_weighs_no_more)
{
    struct touches touches[2] = {{.count = 0}, {.count = 0}};
    for (uint64_t page = 0; page < 100; page++)
        touch(&touches[0], page == 10 ? 251 : page == 30 ? 250 : page);
    touch(&touches[1], 250);
    touch(&touches[1], 251);
    struct fl_recording both[] = {recording(&touches[0]), recording(&touches[1])};
    cr_assert_eq(merge(both, 2, false), 0);
    struct fl_recording order = the_order();
    cr_assert_eq(order.count, 100);
    cr_assert_eq(order.entries[0].page, 250); // means: (30 % + 0 %) / 2
    cr_assert_eq(order.entries[1].page, 251); // (10 % + 50 %) / 2
    fl_recording_free(&order);
}

static void random_touches(struct touches *touches, uint64_t *state)
{
    uint64_t count = 1 + test_random(state) % (2 * PAGES);
    touches->count = 0;
    for (uint64_t i = 0; i < count; i++)
        touch(touches, test_random(state) % PAGES);
}

static void read_trace_file(uint8_t **ret_bytes, size_t *ret_len)
{
    FL_AUTO_CLOSE int fd = open(trace_path, O_RDONLY | O_CLOEXEC);
    uint64_t size;
    cr_assert_eq(fl_file_size(fd, &size), 0);
    *ret_bytes = malloc(size);
    *ret_len = size;
    cr_assert_eq(fl_pread_full(fd, *ret_bytes, size, 0), 0);
}

// All at once, one by one, or one by one from the end: the same file to the bit.
Test(trace, the_order_of_merging_means_nothing)
{
    uint64_t state = test_seed();
    for (int round = 0; round < 20; round++) {
        struct touches touches[RECORDINGS];
        struct fl_recording all[RECORDINGS];
        uint8_t *files[3];
        size_t lens[3];
        for (int i = 0; i < RECORDINGS; i++) {
            random_touches(&touches[i], &state);
            all[i] = recording(&touches[i]);
        }
        cr_assert_eq(merge(all, RECORDINGS, true), 0);
        read_trace_file(&files[0], &lens[0]);
        for (unsigned i = 0; i < RECORDINGS; i++)
            cr_assert_eq(merge(&all[i], 1, i == 0), 0);
        read_trace_file(&files[1], &lens[1]);
        for (unsigned i = 0; i < RECORDINGS; i++)
            cr_assert_eq(merge(&all[RECORDINGS - 1 - i], 1, i == 0), 0);
        read_trace_file(&files[2], &lens[2]);
        for (int i = 1; i < 3; i++) {
            cr_assert_eq(lens[i], lens[0]);
            cr_assert_eq(memcmp(files[i], files[0], lens[0]), 0);
        }
        for (int i = 0; i < 3; i++)
            free(files[i]);
    }
}

// What any trace is, computed from the recordings in another way.
static void expect_model(const struct touches *touches)
{
    uint32_t seen[PAGES] = {0};
    uint64_t pages = 0;
    for (int i = 0; i < RECORDINGS; i++) {
        bool had[PAGES] = {false};
        for (uint64_t k = 0; k < touches[i].count; k++)
            had[touches[i].entries[k].page] = true;
        for (int page = 0; page < PAGES; page++)
            seen[page] += had[page];
    }
    struct fl_recording order = the_order();
    const struct fl_trace_entry *entries = order.entries;
    for (int page = 0; page < PAGES; page++)
        pages += seen[page] > 0;
    cr_assert_eq(order.count, pages);
    for (uint64_t i = 0; i < pages; i++) {
        cr_assert_eq(entries[i].seen, seen[entries[i].page]);
        seen[entries[i].page] = 0; // at most once
        cr_assert(i == 0 || entries[i - 1].seen >= entries[i].seen);
    }
    fl_recording_free(&order);
}

Test(trace, every_page_once_with_its_number_of_recordings)
{
    uint64_t state = test_seed();
    for (int round = 0; round < 20; round++) {
        struct touches touches[RECORDINGS];
        for (int i = 0; i < RECORDINGS; i++) {
            random_touches(&touches[i], &state);
            struct fl_recording one = recording(&touches[i]);
            cr_assert_eq(merge(&one, 1, i == 0), 0);
        }
        expect_model(touches);
    }
}

// Who replays has the same pages; each FL_TRACE_WINDOW of the order comes by page.
Test(trace, replay_goes_by_page_within_a_window)
{
    enum { MANY = 2 * FL_TRACE_WINDOW + 100 };
    struct fl_trace_entry *touches = calloc(MANY, sizeof(*touches));
    cr_assert_eq(make_pages(space.memory, 1, MANY), 0);
    cr_assert_eq(pack_file(space.store, "large", space.memory, NULL), 0);
    for (uint32_t i = 0; i < MANY; i++)
        touches[i] = (struct fl_trace_entry){.page = (uint64_t)i * 1001 % MANY, .ms = i};
    const struct fl_recording one = {.entries = touches, .count = MANY};
    struct fl_trace *trace;
    cr_assert_eq(merge_trace(space.store, "large", &one, 1, false), 0);
    cr_assert_eq(open_trace(space.store, "large", &trace), 0);
    cr_assert_eq(fl_trace_count(trace), MANY, "1001 and MANY have no common divisor");
    for (uint32_t i = 0; i < MANY; i++) {
        const struct fl_trace_entry *entry = &fl_trace_entries(trace)[i];
        cr_assert_eq(entry->ms / FL_TRACE_WINDOW, i / FL_TRACE_WINDOW);
        cr_assert(i % FL_TRACE_WINDOW == 0 || entry[-1].page < entry->page);
    }
    fl_trace_unref(trace);
    free(touches);
}

Test(trace, replace_forgets_what_was_there)
{
    static const uint64_t first[] = {1, 2, 3};
    static const uint64_t second[] = {9, 3};
    struct touches touches[] = {touches_of(first, 3), touches_of(second, 2)};
    struct fl_recording all[] = {recording(&touches[0]), recording(&touches[1])};
    cr_assert_eq(merge(&all[0], 1, false), 0);
    cr_assert_eq(merge(&all[1], 1, true), 0);
    expect_pages(second, 2);
}

Test(trace, recordings_that_cannot_be_of_the_image_are_refused)
{
    static const uint64_t beyond[] = {1, PAGES};
    static const uint8_t other_id[32] = {1};
    struct touches touches[] = {touches_of(beyond, 2), {.count = 0}, touches_of(beyond, 1)};
    struct fl_recording bad = recording(&touches[0]);
    struct fl_recording empty = recording(&touches[1]);
    struct fl_recording other = recording(&touches[2]);
    struct fl_trace *trace;
    other.content_id = other_id;
    cr_assert_eq(merge(&bad, 1, false), -EINVAL);
    cr_assert_eq(merge(&empty, 1, false), -ENODATA);
    cr_assert_eq(merge(NULL, 0, false), -ENODATA);
    cr_assert_eq(merge(&other, 1, false), -ESTALE);
    cr_assert_eq(merge_trace(space.store, "nobody", &other, 1, false), -ENOENT);
    cr_assert_eq(merge_trace(space.store, "../image", &other, 1, false), -EINVAL);
    cr_assert_eq(open_trace(space.store, "image", &trace), -ENOENT);
}

Test(trace, an_empty_recording_counts_for_nothing)
{
    static const uint64_t pages[] = {4};
    struct touches touches[] = {touches_of(pages, 1), {.count = 0}};
    struct fl_recording both[] = {recording(&touches[0]), recording(&touches[1])};
    cr_assert_eq(merge(both, 2, false), 0);
    cr_assert_eq(the_runs(), 1);
}

static void make_trace(void)
{
    static const uint64_t pages[] = {3, 1, 2};
    struct touches touches = touches_of(pages, 3);
    struct fl_recording one = recording(&touches);
    cr_assert_eq(merge(&one, 1, false), 0);
}

static void replace_image(uint64_t first)
{
    struct fl_store *store;
    struct fl_pack_result result;
    struct fl_pack_options options = {.name = "image", .path = space.memory, .replace = true};
    cr_assert_eq(make_pages(space.memory, first, PAGES), 0);
    cr_assert_eq(fl_store_open(space.store, false, &store, NULL), 0);
    cr_assert_eq(fl_store_pack(store, &options, &result, NULL), 0);
    fl_store_close(store);
}

Test(trace, it_is_stale_when_the_image_has_other_content)
{
    struct fl_trace *trace;
    struct fl_gc_result collected;
    struct fl_image_detail detail;
    uint64_t bad;
    make_trace();
    replace_image(5000);
    cr_assert_eq(open_trace(space.store, "image", &trace), -ESTALE);
    cr_assert_eq(inspect_image(space.store, "image", &detail), 0);
    cr_assert_eq(detail.trace.state, FL_TRACE_STALE);
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
    cr_assert_eq(collect_store(space.store, false, &collected), 0);
    cr_assert_eq(collected.traces_removed, 1);
    cr_assert_eq(count_files(space.store, "traces"), 0);
}

Test(trace, it_stays_when_the_same_content_is_packed_again)
{
    struct fl_gc_result collected;
    make_trace();
    replace_image(1);
    cr_assert_eq(collect_store(space.store, false, &collected), 0);
    cr_assert_eq(collected.traces_removed, 0);
    fl_trace_unref(the_trace());
}

Test(trace, a_stale_one_gives_way_to_what_is_recorded_next)
{
    make_trace();
    replace_image(5000);
    make_trace();
    cr_assert_eq(the_runs(), 1);
}

Test(trace, it_goes_with_the_image)
{
    make_trace();
    cr_assert_eq(remove_image(space.store, "image"), 0);
    cr_assert_eq(count_files(space.store, "traces"), 0);
}

// As a kill between the two removals leaves it.
Test(trace, without_an_image_it_is_collected)
{
    struct fl_gc_result collected;
    char path[256];
    snprintf(path, sizeof(path), "%s/images/image.img", space.store);
    make_trace();
    int r = unlink(path);
    cr_assert_eq(r, 0);
    cr_assert_eq(collect_store(space.store, false, &collected), 0);
    cr_assert_eq(collected.traces_removed, 1);
    cr_assert_eq(count_files(space.store, "traces"), 0);
}

Test(trace, it_can_be_removed_alone)
{
    make_trace();
    cr_assert_eq(remove_trace(space.store, "image"), 0);
    cr_assert_eq(count_files(space.store, "traces"), 0);
    cr_assert_eq(count_files(space.store, "images"), 1);
}

enum { PROCESSES = 4, MERGES = 25 };

static void merge_often(int process)
{
    for (int i = 0; i < MERGES; i++) {
        struct touches touches = {.count = 0};
        touch(&touches, (uint64_t)process);
        touch(&touches, (uint64_t)(PROCESSES + process * MERGES + i));
        struct fl_recording one = recording(&touches);
        if (merge(&one, 1, false) < 0)
            _exit(1);
    }
    _exit(0);
}

Test(trace, of_several_who_merge_at_a_time_none_is_lost)
{
    pid_t pids[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        cr_assert_geq(pids[i], 0);
        if (pids[i] == 0)
            merge_often(i);
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        cr_assert_eq(waitpid(pids[i], &status, 0), pids[i]);
        cr_assert_eq(status, 0);
    }
    struct fl_recording order = the_order();
    cr_assert_eq(the_runs(), PROCESSES * MERGES);
    cr_assert_eq(order.count, PROCESSES + PROCESSES * MERGES);
    cr_assert_eq(order.entries[PROCESSES - 1].seen, MERGES);
    fl_recording_free(&order);
}
