// SPDX-License-Identifier: Apache-2.0
//
// repair is killed before each call that changes a file, and each of these calls fails in turn for
// want of space. After each round the store opens, each image is as it was or healed, and repairing
// again heals all of them.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/crash_support.h"

TestSuite(repair, .init = crash_setup, .fini = crash_teardown, .timeout = 280);

static int run_repair(long at, int error)
{
    const char *const argv[] = {faultline(), "repair",     "--store", space.store,
                                "--from",    space.memory, NULL};
    return run(argv, at, error);
}

static int run_verify(const char *store)
{
    const char *const argv[] = {faultline(), "verify", "--store", store, NULL};
    return run(argv, 0, 0);
}

// The base gets two images that share a frame, and the frame gets a wrong byte.
static void damage_base(void)
{
    char pack[200];
    uint8_t bytes[4000];
    cr_assert_eq(only_file(base, "packs", pack, sizeof(pack)), 0);
    cr_assert_eq(run_pack(base, "second", second, 0, 0), 0);
    int fd = open(pack, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    memset(bytes, 0xa5, sizeof(bytes));
    // Far from the start: "second" has the second half of "first".
    off_t end = lseek(fd, 0, SEEK_END);
    cr_assert_eq(pwrite(fd, bytes, sizeof(bytes), end * 3 / 4), (ssize_t)sizeof(bytes));
    close(fd);
    cr_assert_eq(WEXITSTATUS(run_verify(base)), 1);
}

// Each image is as it was or healed, and repairing again is all it takes.
static void expect_repairable(long round)
{
    uint64_t bad;
    struct fl_image *image;
    cr_assert_eq(open_image(space.store, "first", &image), 0, "round %ld", round);
    fl_image_unref(image);
    cr_assert_eq(run_repair(0, 0), 0, "round %ld", round);
    expect_image("first", space.memory, round);
    expect_image("second", second, round);
    cr_assert_eq(collect_store(space.store, false, NULL), 0, "round %ld", round);
    cr_assert_eq(count_files(space.store, "tmp"), 0, "round %ld", round);
    cr_assert_eq(verify_store(space.store, &bad), 0, "round %ld", round);
    cr_assert_eq(bad, 0, "round %ld", round);
}

Test(repair, killed_before_each_call)
{
    long round = 1;
    damage_base();
    for (; round < ROUNDS_MAX; round++) {
        copy_base();
        int status = run_repair(round, 0);
        if (!was_killed(status))
            cr_assert_eq(status, 0, "round %ld", round);
        expect_repairable(round);
        if (!was_killed(status))
            break;
    }
    cr_assert_gt(round, 20);
    cr_assert_lt(round, ROUNDS_MAX);
}

Test(repair, without_space_from_each_call_on)
{
    char text[600];
    long round = 1;
    damage_base();
    for (; round < ROUNDS_MAX; round++) {
        copy_base();
        int status = run_repair(round, ENOSPC);
        cr_assert(WIFEXITED(status), "round %ld: status %x", round, status);
        read_log(text, sizeof(text));
        if (status != 0) {
            cr_assert(strstr(text, strerror(ENOSPC)), "round %ld: %s", round, text);
            cr_assert_eq(count_files(space.store, "tmp"), 0, "round %ld", round);
        }
        expect_repairable(round);
        if (status == 0 && !strstr(text, "could not be"))
            break;
    }
    cr_assert_gt(round, 15);
    cr_assert_lt(round, ROUNDS_MAX);
}

// A kill does not show what a power failure would: whatever gets a name was flushed before, and the
// directory after, before anything else gets one.
static void expect_flushed(const char *order, unsigned renames)
{
    unsigned seen = 0;
    for (const char *at = order; *at; at++) {
        if (*at != 'R')
            continue;
        seen++;
        cr_assert(at > order && at[-1] == 'F' && at[1] == 'F', "%s", order);
    }
    cr_assert_geq(seen, renames, "%s", order);
}

static void read_order(const char *path, char *order, size_t size)
{
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file);
    size_t len = fread(order, 1, size - 1, file);
    order[len] = '\0';
    fclose(file);
    int r = unlink(path);
    cr_assert_eq(r, 0);
}

Test(repair, what_gets_a_name_is_flushed_before_and_after)
{
    char path[128];
    char order[256];
    snprintf(path, sizeof(path), "%s/order", space.dir);
    damage_base();
    copy_base();
    setenv("CRASH_LOG", path, 1);
    cr_assert_eq(run_pack(space.store, "third", second, ROUNDS_MAX, 0), 0);
    read_order(path, order, sizeof(order));
    expect_flushed(order, 2);
    cr_assert_eq(run_repair(ROUNDS_MAX, 0), 0);
    read_order(path, order, sizeof(order));
    expect_flushed(order, 2);
    unsetenv("CRASH_LOG");
}
