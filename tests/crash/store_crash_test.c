// SPDX-License-Identifier: Apache-2.0
//
// The packer, the collector, and what repairs, records traces and lays images out by them, are
// killed before each call that changes a file, one call a round, until a round goes through; and
// each of these calls fails in turn for want of space. After each round: the store opens, what was
// published is intact, the work can be done again, and gc leaves nothing over.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/crash_support.h"

enum { TRACED = 70 };

// The trace that the base has: TRACED pages, the last first.
static void write_recording(const char *path, int step)
{
    FILE *file = fopen(path, "we");
    cr_assert(file);
    for (int page = TRACED - 1; page >= 0; page--)
        fprintf(file, "%d %d\n", page * step, TRACED - page);
    fclose(file);
}

static int run_record(const char *store, const char *recording, long at, int error)
{
    const char *const argv[] = {RECORD_TRACE, store, "first", recording, NULL};
    return run(argv, at, error);
}

static int run_optimize(long at, int error)
{
    const char *const argv[] = {faultline(), "optimize", "--store", space.store, "first", NULL};
    return run(argv, at, error);
}

static int run_live(long at, int error)
{
    const char *const argv[] = {PACK_LIVE, space.store,  "second", second,
                                "first",   space.memory, NULL};
    return run(argv, at, error);
}

static int run_gc(long at, int error)
{
    const char *const argv[] = {faultline(), "gc", "--store", space.store, NULL};
    return run(argv, at, error);
}

TestSuite(crash, .init = crash_setup, .fini = crash_teardown, .timeout = 280);

static void expect_clean(long round, int packs)
{
    uint64_t bad;
    cr_assert_eq(collect_store(space.store, false, NULL), 0, "round %ld", round);
    cr_assert_eq(count_files(space.store, "tmp"), 0, "round %ld", round);
    cr_assert_eq(count_files(space.store, "packs"), packs, "round %ld", round);
    cr_assert_eq(verify_store(space.store, &bad), 0, "round %ld", round);
    cr_assert_eq(bad, 0, "round %ld", round);
}

// After any end of packing "second" into a store that has "first".
static void expect_whole(long round)
{
    uint64_t bad;
    cr_assert_eq(verify_store(space.store, &bad), 0, "round %ld", round);
    cr_assert_eq(bad, 0, "round %ld", round);
    expect_image("first", space.memory, round);
    if (has_image("second"))
        expect_image("second", second, round);
    else
        cr_assert_eq(run_pack(space.store, "second", second, 0, 0), 0, "round %ld", round);
    expect_clean(round, 2);
    expect_image("first", space.memory, round);
    expect_image("second", second, round);
}

Test(crash, pack_killed_before_each_call)
{
    long round = 1;
    bool published = false;
    for (; round < ROUNDS_MAX; round++) {
        copy_base();
        int status = run_pack(space.store, "second", second, round, 0);
        published |= has_image("second") && was_killed(status);
        if (!was_killed(status))
            cr_assert_eq(status, 0, "round %ld", round);
        expect_whole(round);
        if (!was_killed(status))
            break;
    }
    cr_assert_gt(round, 10);
    cr_assert_lt(round, ROUNDS_MAX);
    cr_assert(published, "some rounds were killed after publishing");
}

// A child of "first", with a companion.
static void expect_child(long round)
{
    struct fl_image_detail detail;
    cr_assert_eq(inspect_image(space.store, "second", &detail), 0, "round %ld", round);
    cr_assert_str_eq(detail.info.parent, "first");
    cr_assert_eq(detail.info.companions, 1);
}

Test(crash, live_pack_killed_before_each_call)
{
    long round = 1;
    bool published = false;
    for (; round < ROUNDS_MAX; round++) {
        copy_base();
        int status = run_live(round, 0);
        published |= has_image("second") && was_killed(status);
        if (!was_killed(status))
            cr_assert_eq(status, 0, "round %ld", round);
        if (has_image("second"))
            expect_child(round);
        expect_whole(round);
        if (!was_killed(status))
            break;
    }
    cr_assert_gt(round, 10);
    cr_assert_lt(round, ROUNDS_MAX);
    cr_assert(published, "some rounds were killed after publishing");
}

// The process that has the index open ends at any of its calls: the image is complete, and there is
// an index again.
Test(crash, index_process_killed_before_each_call)
{
    long round = 1;
    int rebuilt = 0;
    bool more = true;
    setenv("CRASH_CHILD", "1", 1);
    for (; more && round < ROUNDS_MAX; round++) {
        char text[600];
        copy_base();
        int status = run_pack(space.store, "second", second, round, 0);
        cr_assert_eq(status, 0, "round %ld", round);
        read_log(text, sizeof(text));
        more = strstr(text, "the store's index") != NULL;
        rebuilt += strstr(text, "was damaged and was built again") != NULL;
        expect_whole(round);
    }
    unsetenv("CRASH_CHILD");
    cr_assert_gt(rebuilt, 1);
    cr_assert_gt(round, 4);
    cr_assert_lt(round, ROUNDS_MAX);
}

Test(crash, first_pack_killed_before_each_call)
{
    long round = 1;
    for (; round < ROUNDS_MAX; round++) {
        char command[200];
        snprintf(command, sizeof(command), "rm -rf '%s'", space.store);
        cr_assert_eq(system(command), 0);
        int status = run_pack(space.store, "first", space.memory, round, 0);
        bool there = access(space.store, F_OK) == 0 && has_image("first");
        if (!there)
            cr_assert_eq(run_pack(space.store, "first", space.memory, 0, 0), 0, "round %ld", round);
        expect_image("first", space.memory, round);
        expect_clean(round, 1);
        if (!was_killed(status))
            break;
    }
    cr_assert_gt(round, 10);
    cr_assert_lt(round, ROUNDS_MAX);
}

// All that is left of a failed pack is a sentence.
static void expect_failed_cleanly(long round, int status)
{
    char text[600];
    cr_assert_eq(WEXITSTATUS(status), 1, "round %ld", round);
    read_log(text, sizeof(text));
    cr_assert(strstr(text, "faultline pack: ") == text, "round %ld: %s", round, text);
    cr_assert(strstr(text, strerror(ENOSPC)), "round %ld: %s", round, text);
    cr_assert_not(has_image("second"), "round %ld", round);
    cr_assert_eq(count_files(space.store, "tmp"), 0, "round %ld", round);
    cr_assert_eq(count_files(space.store, "packs"), 1, "round %ld", round);
}

// Once the image is published only the index can fail, which is a warning: the round without one is
// the first that reached none of the calls.
Test(crash, pack_without_space_from_each_call_on)
{
    long round = 1;
    int failed = 0;
    int warned = 0;
    for (; round < ROUNDS_MAX; round++) {
        char text[600];
        copy_base();
        int status = run_pack(space.store, "second", second, round, ENOSPC);
        cr_assert(WIFEXITED(status), "round %ld: status %x", round, status);
        if (status != 0)
            expect_failed_cleanly(round, status);
        failed += status != 0;
        read_log(text, sizeof(text));
        expect_whole(round);
        bool warning = strstr(text, "/index could not be") != NULL;
        warned += warning;
        if (status == 0 && !warning)
            break;
    }
    cr_assert_gt(failed, 8);
    cr_assert_gt(warned, 1);
    cr_assert_lt(round, ROUNDS_MAX);
}

Test(crash, gc_killed_before_each_call)
{
    long round = 1;
    cr_assert_eq(run_pack(base, "second", second, 0, 0), 0);
    char leftover[160];
    snprintf(leftover, sizeof(leftover), "%s/tmp/.leftover", base);
    cr_assert_eq(make_pages(leftover, 1, 1), 0);
    char image[160];
    snprintf(image, sizeof(image), "%s/images/second.img", base);
    int r = unlink(image);
    cr_assert_eq(r, 0);
    for (; round < ROUNDS_MAX; round++) {
        copy_base();
        int status = run_gc(round, 0);
        expect_image("first", space.memory, round);
        expect_clean(round, 1);
        cr_assert_eq(run_pack(space.store, "second", second, 0, 0), 0, "round %ld", round);
        expect_image("second", second, round);
        if (!was_killed(status))
            break;
    }
    cr_assert_gt(round, 3);
    cr_assert_lt(round, ROUNDS_MAX);
}

// Without space an unpack leaves no file, and no piece of one.
Test(crash, unpack_without_space_from_each_call_on)
{
    long round = 1;
    const char *const argv[] = {faultline(), "unpack", "--store",    base, "--threads",
                                "1",         "first",  space.output, NULL};
    for (; round < ROUNDS_MAX; round++) {
        int status = run(argv, round, ENOSPC);
        if (status == 0)
            break;
        cr_assert(WIFEXITED(status), "round %ld", round);
        cr_assert_eq(WEXITSTATUS(status), 1, "round %ld", round);
        cr_assert_neq(access(space.output, F_OK), 0, "round %ld", round);
        cr_assert_eq(count_files(space.dir, "."), 4, "round %ld: base, memory, second, log", round);
    }
    cr_assert_gt(round, 3);
    cr_assert_lt(round, ROUNDS_MAX);
    cr_assert(same_files(space.memory, space.output));
}

// The recordings that the trace is merged from; 0: there is no trace.
static uint32_t trace_runs(long round)
{
    struct fl_trace *trace = NULL;
    int r = open_trace(space.store, "first", &trace);
    if (r == -ENOENT)
        return 0;
    cr_assert_eq(r, 0, "round %ld", round);
    uint32_t runs = fl_trace_runs(trace);
    cr_assert_geq(fl_trace_count(trace), TRACED, "round %ld", round);
    fl_trace_unref(trace);
    return runs;
}

// The first trace of a store and one that is merged into another: the old one is there or the new
// one, whole, and recording again is all it takes.
static void kill_recording(uint32_t runs)
{
    char recording[160];
    long round = 1;
    snprintf(recording, sizeof(recording), "%s/recording", space.dir);
    write_recording(recording, 3);
    for (; round < ROUNDS_MAX; round++) {
        copy_base();
        int status = run_record(space.store, recording, round, 0);
        uint32_t after = trace_runs(round);
        cr_assert(after == runs || after == runs + 1, "round %ld: %u", round, after);
        if (!was_killed(status)) {
            cr_assert_eq(status, 0, "round %ld", round);
            cr_assert_eq(after, runs + 1, "round %ld", round);
            break;
        }
        cr_assert_eq(run_record(space.store, recording, 0, 0), 0, "round %ld", round);
        cr_assert_eq(trace_runs(round), after + 1, "round %ld", round);
        expect_clean(round, 1);
        expect_image("first", space.memory, round);
    }
    cr_assert_gt(round, 4);
    cr_assert_lt(round, ROUNDS_MAX);
}

Test(crash, first_recording_killed_before_each_call)
{
    kill_recording(0);
}

static void record_base(void)
{
    char recording[160];
    snprintf(recording, sizeof(recording), "%s/recording", space.dir);
    write_recording(recording, 1);
    cr_assert_eq(run_record(base, recording, 0, 0), 0);
}

Test(crash, merging_killed_before_each_call)
{
    record_base();
    kill_recording(1);
}

Test(crash, recording_without_space_from_each_call_on)
{
    char recording[160];
    char text[600];
    long round = 1;
    record_base();
    snprintf(recording, sizeof(recording), "%s/recording", space.dir);
    for (; round < ROUNDS_MAX; round++) {
        copy_base();
        int status = run_record(space.store, recording, round, ENOSPC);
        if (status == 0)
            break;
        cr_assert(WIFEXITED(status), "round %ld", round);
        read_log(text, sizeof(text));
        cr_assert(strstr(text, strerror(ENOSPC)), "round %ld: %s", round, text);
        cr_assert_leq(trace_runs(round), 1, "round %ld", round);
        cr_assert_eq(count_files(space.store, "tmp"), 0, "round %ld", round);
        expect_clean(round, 1);
    }
    cr_assert_gt(round, 3);
    cr_assert_lt(round, ROUNDS_MAX);
}

// The old layout or the new one, and the trace is of both.
static void expect_laid_out(long round)
{
    uint64_t bad;
    cr_assert_eq(verify_store(space.store, &bad), 0, "round %ld", round);
    cr_assert_eq(bad, 0, "round %ld", round);
    expect_image("first", space.memory, round);
    cr_assert_eq(trace_runs(round), 1, "round %ld", round);
    cr_assert_eq(run_optimize(0, 0), 0, "round %ld", round);
    expect_clean(round, 2);
    expect_image("first", space.memory, round);
}

Test(crash, optimize_killed_before_each_call)
{
    long round = 1;
    bool published = false;
    record_base();
    for (; round < ROUNDS_MAX; round++) {
        copy_base();
        int status = run_optimize(round, 0);
        struct fl_image_detail detail;
        cr_assert_eq(inspect_image(space.store, "first", &detail), 0, "round %ld", round);
        published |= detail.info.packs == 2 && was_killed(status);
        if (!was_killed(status))
            cr_assert_eq(status, 0, "round %ld", round);
        expect_laid_out(round);
        if (!was_killed(status))
            break;
    }
    cr_assert_gt(round, 10);
    cr_assert_lt(round, ROUNDS_MAX);
    cr_assert(published, "some rounds were killed after publishing");
}

Test(crash, optimize_without_space_from_each_call_on)
{
    char text[600];
    long round = 1;
    record_base();
    for (; round < ROUNDS_MAX; round++) {
        copy_base();
        int status = run_optimize(round, ENOSPC);
        cr_assert(WIFEXITED(status), "round %ld: status %x", round, status);
        read_log(text, sizeof(text));
        if (status != 0) {
            cr_assert(strstr(text, strerror(ENOSPC)), "round %ld: %s", round, text);
            cr_assert_eq(count_files(space.store, "tmp"), 0, "round %ld", round);
            cr_assert_eq(count_files(space.store, "packs"), 1, "round %ld", round);
        }
        expect_laid_out(round);
        if (status == 0 && !strstr(text, "/index could not be"))
            break;
    }
    cr_assert_gt(round, 8);
    cr_assert_lt(round, ROUNDS_MAX);
}
