// SPDX-License-Identifier: Apache-2.0
//
// The verbs on a file system without space: a small tmpfs in a mount namespace of the test's own,
// of many sizes. Each verb ends with a sentence and never by a signal; the store opens and is
// right, and all of it works once there is space.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/snapshot_support.h"

enum { PAGES = 300, TRACED = 70, KIB = 1024 };

static struct workspace space;
static char disk[80];   // the tmpfs, with the store
static char second[96]; // a memory file that shares some pages with space.memory

static const char *faultline(void)
{
    const char *given = getenv("FAULTLINE_BIN");
    return given ? given : FAULTLINE_DEFAULT;
}

static void skip_or_fail(const char *why)
{
    const char *ci = getenv("CI");
    cr_assert_not(ci && strcmp(ci, "true") == 0, "%s", why);
    cr_skip_test("%s", why);
}

static void resize(unsigned kib)
{
    char options[64];
    snprintf(options, sizeof(options), "size=%uk", kib);
    cr_assert_eq(mount("disk", disk, "tmpfs", MS_REMOUNT, options), 0, "%s", strerror(errno));
}

static void setup(void)
{
    cr_assert_eq(workspace_make(&space), 0);
    snprintf(disk, sizeof(disk), "%s/disk", space.dir);
    snprintf(second, sizeof(second), "%s/second", space.dir);
    snprintf(space.store, sizeof(space.store), "%s/store", disk);
    cr_assert_eq(make_pages(space.memory, 1, PAGES), 0);
    cr_assert_eq(make_pages(second, PAGES - 40, PAGES), 0);
    int r = mkdir(disk, 0700);
    cr_assert_eq(r, 0);
    // The mount goes with the process, whatever becomes of it.
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("disk", disk, "tmpfs", 0, "size=64m") < 0)
        skip_or_fail("needs a mount namespace and a tmpfs: root");
}

static void teardown(void)
{
    umount2(disk, MNT_DETACH);
    workspace_remove(&space);
}

TestSuite(full_disk, .init = setup, .fini = teardown, .timeout = 200);

// --- the command ---

// Its exit status; what it says goes to `text`. A signal is a failure.
static int run(const char *const *argv, char *text, size_t size)
{
    int ends[2];
    int status;
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        execv(faultline(), (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t got; (got = read(ends[0], text + used, size - 1 - used)) > 0;)
        used += (size_t)got;
    text[used] = '\0';
    close(ends[0]);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status), "%s ended by signal %d: %s", argv[1], WTERMSIG(status), text);
    return WEXITSTATUS(status);
}

static int pack_it(char *text, size_t size)
{
    const char *const argv[] = {"faultline", "pack",   "--store", space.store,
                                "--name",    "second", second,    NULL};
    return run(argv, text, size);
}

static int collect_it(char *text, size_t size)
{
    const char *const argv[] = {"faultline", "gc", "--rebuild-index", "--store", space.store, NULL};
    return run(argv, text, size);
}

// Of a store whose index is lost.
static int index_it(char *text, size_t size)
{
    return collect_it(text, size);
}

static int optimize_it(char *text, size_t size)
{
    const char *const argv[] = {"faultline", "optimize", "--store", space.store, "first", NULL};
    return run(argv, text, size);
}

static int repair_it(char *text, size_t size)
{
    const char *const argv[] = {"faultline", "repair",     "--store", space.store,
                                "--from",    space.memory, NULL};
    return run(argv, text, size);
}

static int verify_it(char *text, size_t size)
{
    const char *const argv[] = {"faultline", "verify", "--store", space.store, NULL};
    return run(argv, text, size);
}

// --- the store ---

static void make_store(bool damaged)
{
    struct fl_trace_entry touched[TRACED];
    char text[4000];
    char pack[256];
    resize(64 * KIB);
    remove_tree(space.store);
    for (uint32_t i = 0; i < TRACED; i++)
        touched[i] = (struct fl_trace_entry){.page = 3 * i, .ms = i};
    const struct fl_recording one = {.entries = touched, .count = TRACED};
    cr_assert_eq(pack_file(space.store, "first", space.memory, NULL), 0);
    cr_assert_eq(merge_trace(space.store, "first", &one, 1, false), 0);
    cr_assert_eq(only_file(space.store, "packs", pack, sizeof(pack)), 0);
    if (!damaged)
        return;
    int fd = open(pack, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    memset(text, 0xa5, sizeof(text));
    cr_assert_eq(pwrite(fd, text, sizeof(text), 100000), (ssize_t)sizeof(text));
    close(fd);
    cr_assert_eq(verify_it(text, sizeof(text)), 1);
}

// What the store takes now and so many KiB more: tmpfs counts whole pages.
static void leave_space(unsigned kib)
{
    struct statvfs st;
    cr_assert_eq(statvfs(disk, &st), 0);
    resize((unsigned)((st.f_blocks - st.f_bfree) * st.f_frsize / KIB) + kib);
}

static void expect_right(unsigned kib, bool damaged)
{
    struct fl_image *image;
    char text[4000];
    cr_assert_eq(open_image(space.store, "first", &image), 0, "%u KiB", kib);
    cr_assert(damaged || image_is_file(image, space.memory), "%u KiB", kib);
    fl_image_unref(image);
    cr_assert_eq(count_files(space.store, "tmp"), 0, "%u KiB", kib);
    if (!damaged)
        cr_assert_eq(verify_it(text, sizeof(text)), 0, "%u KiB: %s", kib, text);
}

// With space again: everything works, shares, and is right.
static void expect_works(unsigned kib)
{
    char text[4000];
    struct fl_image *image;
    resize(64 * KIB);
    cr_assert_eq(repair_it(text, sizeof(text)), 0, "%u KiB: %s", kib, text);
    cr_assert_eq(optimize_it(text, sizeof(text)), 0, "%u KiB: %s", kib, text);
    if (open_image(space.store, "second", &image) < 0)
        cr_assert_eq(pack_it(text, sizeof(text)), 0, "%u KiB: %s", kib, text);
    else
        fl_image_unref(image);
    cr_assert_eq(collect_it(text, sizeof(text)), 0, "%u KiB: %s", kib, text);
    cr_assert_null(strstr(text, "could not"), "%u KiB: %s", kib, text);
    cr_assert_eq(verify_it(text, sizeof(text)), 0, "%u KiB: %s", kib, text);
    cr_assert_eq(open_image(space.store, "second", &image), 0, "%u KiB", kib);
    cr_assert(image_is_file(image, second), "%u KiB", kib);
    fl_image_unref(image);
    expect_right(kib, false);
}

static void lose_index(void)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/index", space.store);
    remove_tree(path);
}

// From nothing on, until the verb has nothing to complain of.
static void try_sizes(int (*verb)(char *, size_t), bool damaged)
{
    int failed = 0;
    bool complained = true;
    for (unsigned kib = 0; complained; kib += kib < 32 ? 8 : 84) {
        char text[4000];
        cr_assert_lt(kib, 16 * KIB);
        make_store(damaged);
        if (verb == index_it)
            lose_index();
        leave_space(kib);
        int status = verb(text, sizeof(text));
        complained = status != 0 || strstr(text, "could not");
        failed += complained;
        cr_assert(!complained || (strstr(text, space.store) && strstr(text, strerror(ENOSPC))),
                  "%u KiB: %s", kib, text);
        cr_assert_leq(status, 1, "%u KiB: %s", kib, text);
        expect_right(kib, damaged);
        expect_works(kib);
    }
    cr_assert_gt(failed, 0);
}

Test(full_disk, pack)
{
    try_sizes(pack_it, false);
}

Test(full_disk, gc)
{
    try_sizes(index_it, false);
}

Test(full_disk, optimize)
{
    try_sizes(optimize_it, false);
}

Test(full_disk, repair)
{
    try_sizes(repair_it, true);
}

// The index has holes where it had pages, as a copy may have, and nothing is left to fill them
// with: LMDB's map of it cannot be read.
Test(full_disk, an_index_with_holes)
{
    char path[160];
    char text[4000];
    snprintf(path, sizeof(path), "%s/index/data.mdb", space.store);
    for (int verb = 0; verb < 2; verb++) {
        make_store(false);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        cr_assert_geq(fd, 0);
        off_t end = lseek(fd, 0, SEEK_END);
        cr_assert_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, end - 8192),
                     0);
        close(fd);
        leave_space(0);
        int status = verb == 0 ? pack_it(text, sizeof(text)) : collect_it(text, sizeof(text));
        cr_assert_leq(status, 1);
        expect_right(0, false);
        expect_works(0);
    }
}
