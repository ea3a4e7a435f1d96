// SPDX-License-Identifier: Apache-2.0
//
// Recompressing and compacting are killed before each call that changes a file, one call a round,
// and each of these calls fails in turn for want of space. After each round all images are whole,
// the work can be done again, and gc leaves nothing over.
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/crash_support.h"

// Of few frames: each is a call, and each call a round.
static void setup(void)
{
    char command[200];
    crash_setup();
    snprintf(command, sizeof(command), "rm -rf '%s'", base);
    cr_assert_eq(system(command), 0);
    cr_assert_eq(make_pages(space.memory, 1, 80), 0);
    cr_assert_eq(make_pages(second, 40, 80), 0);
    cr_assert_eq(run_pack(base, "first", space.memory, 0, 0), 0);
}

TestSuite(rewrite_crash, .init = setup, .fini = crash_teardown, .timeout = 280);

static int run_recompress(long at, int error)
{
    const char *const argv[] = {faultline(), "recompress", "--store", space.store,
                                "--level",   "1",          "--all",   NULL};
    return run(argv, at, error);
}

static int run_compact(long at, int error)
{
    const char *const argv[] = {faultline(), "gc", "--store", space.store, "--compact", "1", NULL};
    return run(argv, at, error);
}

// The images are there and whole, whatever the moment; then the work is done to its end. Each pack
// is written once, also if only one image had its new map.
static void expect_whole(long round, bool first, int (*again)(long at, int error))
{
    uint64_t bad = 1;
    struct fl_gc_result result;
    cr_assert_eq(verify_store(space.store, &bad), 0, "round %ld", round);
    cr_assert_eq(bad, 0, "round %ld", round);
    if (first)
        expect_image("first", space.memory, round);
    expect_image("second", second, round);
    cr_assert_eq(again(0, 0), 0, "round %ld", round);
    cr_assert_eq(collect_store(space.store, false, &result), 0, "round %ld", round);
    cr_assert_eq(count_files(space.store, "tmp"), 0, "round %ld", round);
    cr_assert_eq(count_files(space.store, "packs"), 2, "round %ld", round);
    cr_assert_eq(result.dead_bytes, 0, "round %ld", round);
    expect_image("second", second, round);
}

// Of its first page.
static uint64_t pack_of(const char *name)
{
    struct fl_image *image;
    cr_assert_eq(open_image(space.store, name, &image), 0);
    struct fl_run run = fl_image_run(image, 0, 1);
    fl_image_unref(image);
    return run.id.pack;
}

static void kill_at_each_call(bool first, int (*work)(long at, int error))
{
    long round = 1;
    bool halfway = false;
    uint64_t before = 0;
    for (; round < ROUNDS_MAX; round++) {
        copy_base();
        before = pack_of("second");
        int status = work(round, 0);
        halfway |= was_killed(status) && pack_of("second") != before;
        if (!was_killed(status))
            cr_assert_eq(status, 0, "round %ld", round);
        expect_whole(round, first, work);
        if (!was_killed(status))
            break;
    }
    cr_assert_gt(round, 10);
    cr_assert_lt(round, ROUNDS_MAX);
    cr_assert(halfway, "some rounds were killed after an image was published");
}

Test(rewrite_crash, recompress_killed_before_each_call)
{
    cr_assert_eq(run_pack(base, "second", second, 0, 0), 0);
    kill_at_each_call(true, run_recompress);
}

static void make_dead(void)
{
    char image[160];
    cr_assert_eq(run_pack(base, "second", second, 0, 0), 0);
    snprintf(image, sizeof(image), "%s/images/first.img", base);
    cr_assert_eq(unlink(image), 0);
}

Test(rewrite_crash, compacting_killed_before_each_call)
{
    make_dead();
    kill_at_each_call(false, run_compact);
}

Test(rewrite_crash, recompress_without_space_from_each_call_on)
{
    long round = 1;
    int failed = 0;
    cr_assert_eq(run_pack(base, "second", second, 0, 0), 0);
    copy_base();
    const uint64_t first_pack = pack_of("first");
    const uint64_t second_pack = pack_of("second");
    for (; round < ROUNDS_MAX; round++) {
        char text[600];
        copy_base();
        int status = run_recompress(round, ENOSPC);
        cr_assert(WIFEXITED(status), "round %ld: status %x", round, status);
        read_log(text, sizeof(text));
        failed += status != 0;
        if (status != 0)
            cr_assert(strstr(text, strerror(ENOSPC)), "round %ld: %s", round, text);
        if (status != 0 && pack_of("first") == first_pack && pack_of("second") == second_pack)
            cr_assert_eq(count_files(space.store, "packs"), 2, "round %ld: taken back", round);
        // What was moved is noted there while an image has not got it.
        bool one = (pack_of("first") != first_pack) != (pack_of("second") != second_pack);
        cr_assert_eq(count_files(space.store, "tmp"), one ? 1 : 0, "round %ld", round);
        expect_whole(round, true, run_recompress);
        if (status == 0 && !strstr(text, "/index could not be"))
            break;
    }
    cr_assert_gt(failed, 8);
    cr_assert_lt(round, ROUNDS_MAX);
}
