// SPDX-License-Identifier: Apache-2.0
//
// Packing from a live source where the store fails it: it is full, cannot be written, or the parent
// is damaged. Nothing is published, a sentence says why, and the source was told to stop.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "snapshot/pack_file.h"
#include "tests/unit/live_source.h"
#include "tests/unit/snapshot_support.h"

enum { CHUNK = 512, KIB = 1024 };
#define BYTES ((uint64_t)3 * CHUNK * FL_PAGE_SIZE + 777)

static struct workspace space;
static uint64_t state;
static char disk[80]; // of the store, where a test wants one
static char expected[128];
static struct fl_pack_result parent;

static void setup(void)
{
    state = test_seed();
    cr_assert_eq(workspace_make(&space), 0);
    snprintf(expected, sizeof(expected), "%s/expected", space.dir);
    snprintf(disk, sizeof(disk), "%s/disk", space.dir);
    cr_assert_eq(make_memory(space.memory, BYTES, &state), 0);
}

static void teardown(void)
{
    umount2(disk, MNT_DETACH);
    workspace_remove(&space);
}

TestSuite(live_failure, .init = setup, .fini = teardown, .timeout = 170);

static void make_parent(void)
{
    cr_assert_eq(pack_file(space.store, "parent", space.memory, &parent), 0);
}

// The mount goes with the process, whatever becomes of it.
static void use_disk(void)
{
    int r = mkdir(disk, 0700);
    cr_assert_eq(r, 0);
    snprintf(space.store, sizeof(space.store), "%s/store", disk);
    if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("disk", disk, "tmpfs", 0, "size=64m") == 0)
        return;
    const char *ci = getenv("CI");
    cr_assert_not(ci && strcmp(ci, "true") == 0, "a tmpfs cannot be mounted");
    cr_skip_test("needs a mount namespace and a tmpfs: root");
}

static void remount(unsigned long flags, const char *options)
{
    cr_assert_eq(mount("disk", disk, "tmpfs", MS_REMOUNT | flags, options), 0);
}

// What is taken now and so many KiB more: tmpfs counts whole pages.
static void leave_space(unsigned kib)
{
    struct statvfs st;
    char options[64];
    cr_assert_eq(statvfs(disk, &st), 0);
    snprintf(options, sizeof(options), "size=%luk",
             (unsigned long)((st.f_blocks - st.f_bfree) * st.f_frsize / KIB) + kib);
    remount(0, options);
}

static int pack_child(struct live_source *source)
{
    struct fl_pack_result result;
    cr_assert_eq(
        live_make(source, space.memory, expected, BYTES, (struct live_mix){90, 40, 20}, &state), 0);
    return live_pack(source, space.store, "child", "parent", parent.content_id, 0, &result);
}

static void expect_nothing(const struct live_source *source, int packs, const char *reason)
{
    cr_assert(strstr(source->error.text, reason), "%s", source->error.text);
    cr_assert_eq(source->published, 0);
    cr_assert_eq(source->twice, 0);
    cr_assert_eq(count_files(space.store, "images"), 1);
    cr_assert_eq(count_files(space.store, "packs"), packs);
    cr_assert_eq(count_files(space.store, "tmp"), 0);
}

static void expect_child(void)
{
    struct fl_image *image;
    cr_assert_eq(open_image(space.store, "child", &image), 0);
    cr_assert(image_is_file(image, expected));
    fl_image_unref(image);
}

static void expect_sound(void)
{
    uint64_t bad = 1;
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
}

// --- a disk that is full or cannot be written ---

// From nothing on, until there is enough.
Test(live_failure, of_a_full_disk)
{
    struct live_source source;
    unsigned failed = 0;
    int error = -ENOSPC;
    use_disk();
    make_parent();
    for (unsigned kib = 0; error != 0; kib += kib < 16 ? 4 : 172) {
        cr_assert_lt(kib, 16 * KIB);
        leave_space(kib);
        error = pack_child(&source);
        cr_assert(error == 0 || error == -ENOSPC, "%u KiB: %d", kib, error);
        if (error != 0) {
            expect_nothing(&source, 1, space.store);
            cr_assert(strstr(source.error.text, strerror(ENOSPC)), "%s", source.error.text);
        } else {
            expect_child();
        }
        live_free(&source);
        remount(0, "size=64m");
        failed += error != 0;
        expect_sound();
    }
    cr_assert_gt(failed, 2);
}

Test(live_failure, of_a_disk_that_became_read_only)
{
    struct live_source source;
    use_disk();
    make_parent();
    remount(MS_RDONLY, NULL);
    cr_assert_eq(pack_child(&source), -EROFS);
    expect_nothing(&source, 1, space.store);
    cr_assert_eq(source.awaited, 0); // the VM was not even looked at
    live_free(&source);
    remount(0, NULL);
    cr_assert_eq(pack_child(&source), 0);
    expect_child();
    live_free(&source);
}

// A write that fails in the midst, as one of a disk that breaks: a limit of the process is one that
// can be had.
Test(live_failure, of_a_write_in_the_midst)
{
    struct live_source source;
    struct rlimit before;
    make_parent();
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t limit = 16 * KIB; limit <= 256 * KIB; limit *= 4) {
        cr_assert_eq(live_make(&source, space.memory, expected, BYTES,
                               (struct live_mix){200, 20, 20}, &state),
                     0);
        struct fl_pack_result result;
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, before.rlim_max}), 0);
        int r = live_pack(&source, space.store, "child", "parent", parent.content_id, 0, &result);
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
        cr_assert_eq(r, -EFBIG);
        cr_assert(source.stopped);
        expect_nothing(&source, 1, space.store);
        live_free(&source);
    }
    cr_assert_eq(pack_child(&source), 0);
    expect_child();
    expect_sound();
    live_free(&source);
}

Test(live_failure, of_a_buffer_that_cannot_be_read)
{
    struct live_source source;
    struct fl_pack_result result;
    make_parent();
    cr_assert_eq(
        live_make(&source, space.memory, expected, BYTES, (struct live_mix){90, 40, 20}, &state),
        0);
    int buffer = source.live.buffer_fd;
    source.live.buffer_fd = open(space.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(live_pack(&source, space.store, "child", "parent", parent.content_id, 0, &result),
                 -EISDIR);
    expect_nothing(&source, 1, "cannot read the pages of the VM");
    cr_assert(source.stopped);
    close(source.live.buffer_fd);
    source.live.buffer_fd = buffer;
    live_free(&source);
}

static void take_the_name(void *arg, uint64_t first)
{
    (void)arg;
    if (first == CHUNK)
        cr_assert_eq(pack_file(space.store, "child", space.memory, NULL), 0);
}

// The pack was published before that was seen: it is nobody's.
Test(live_failure, of_a_name_that_was_taken_meanwhile)
{
    struct live_source source;
    struct fl_pack_result result;
    make_parent();
    cr_assert_eq(
        live_make(&source, space.memory, expected, BYTES, (struct live_mix){90, 40, 20}, &state),
        0);
    source.before = take_the_name;
    cr_assert_eq(live_pack(&source, space.store, "child", "parent", parent.content_id, 0, &result),
                 -EEXIST);
    cr_assert(strstr(source.error.text, "has an image 'child' already"), "%s", source.error.text);
    cr_assert_eq(source.published, 0);
    cr_assert_eq(count_files(space.store, "packs"), 1);
    cr_assert_eq(count_files(space.store, "tmp"), 0);
    expect_sound();
    live_free(&source);
}

// --- a parent that is damaged ---

static int open_pack(void)
{
    char path[256];
    cr_assert_eq(only_file(space.store, "packs", path, sizeof(path)), 0);
    return open(path, O_RDWR | O_CLOEXEC);
}

static void spoil(int fd, uint64_t offset)
{
    uint8_t byte;
    cr_assert_eq(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x40;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
}

struct bad_objects {
    unsigned packs, images;
    bool child;
};

static void note_bad(void *arg, const char *object, const char *problem)
{
    struct bad_objects *bad = arg;
    (void)problem;
    bad->packs += strncmp(object, "pack ", 5) == 0;
    bad->images += strncmp(object, "image ", 6) == 0;
    bad->child |= strcmp(object, "image child") == 0;
}

static struct bad_objects find_bad(void)
{
    struct fl_store *store;
    struct fl_error error;
    struct fl_verify_result result;
    struct bad_objects bad = {0};
    const struct fl_verify_options options = {.bad = note_bad, .bad_arg = &bad};
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0);
    cr_assert_eq(fl_store_verify(store, &options, &result, &error), 0);
    fl_store_close(store);
    return bad;
}

// Every page is as it has to be, or in the frame that cannot be read. Returns how many are that.
static uint64_t lost_pages(const struct live_source *source)
{
    static char frame[FL_FRAME_PAGES_MAX * FL_PAGE_SIZE];
    struct fl_image *image;
    uint64_t lost = 0;
    cr_assert_eq(open_image(space.store, "child", &image), 0);
    cr_assert_eq(fl_image_read_map(image, 0, source->pages), 0);
    for (uint64_t page = 0; page < source->pages; page++) {
        struct fl_run run = fl_image_run(image, page, 1);
        const uint8_t *want = source->expected + page * FL_PAGE_SIZE;
        size_t left = source->live.bytes - page * FL_PAGE_SIZE;
        bool read = !run.zero && fl_frame_read(image, run.id, frame) == 0;
        if (!run.zero && !read)
            lost++;
        else if (read)
            cr_assert_eq(memcmp(frame + (size_t)run.slot * FL_PAGE_SIZE, want,
                                left < FL_PAGE_SIZE ? left : FL_PAGE_SIZE),
                         0, "page %lu", page);
        cr_assert(read || run.zero || source->kind[page] == FL_LIVE_PARENT, "page %lu", page);
    }
    fl_image_unref(image);
    return lost;
}

enum { FIRST = 1000000 }; // what the parent's pages are made from

// Otherwise what is lost would be found there again.
static void forget_copies(struct live_source *source)
{
    uint8_t lost[FL_PAGE_SIZE];
    for (uint64_t page = 0; page < source->pages; page++) {
        uint8_t *at = source->expected + page * FL_PAGE_SIZE;
        for (uint64_t other = 0; source->kind[page] == FL_LIVE_DATA && other < FL_FRAME_PAGES;
             other++) {
            fill_page(lost, FIRST + other);
            if (memcmp(at, lost, sizeof(lost)) == 0)
                fill_page(at, 2 * FIRST + page);
        }
    }
}

// The VM may never have needed what is lost, so its image is made. But it is lost in the child as
// it is in the parent: a read fails, and verify names both.
static void with_a_broken_frame(struct live_mix mix, unsigned nearly_all)
{
    struct live_source source;
    struct fl_pack_result result;
    cr_assert_eq(make_pages(space.memory, FIRST, 3 * CHUNK), 0);
    make_parent();
    int fd = open_pack();
    spoil(fd, sizeof(struct fl_disk_pack_header) + 100); // in page 0, and in the frame of 0 to 15
    close(fd);
    cr_assert_eq(live_make(&source, space.memory, expected, 3 * CHUNK * FL_PAGE_SIZE, mix, &state),
                 0);
    for (uint64_t page = 0; page < nearly_all * FL_FRAME_PAGES; page++) {
        source.kind[page] = page % FL_FRAME_PAGES == 0 ? FL_LIVE_PARENT : FL_LIVE_DATA;
        fill_page(source.expected + page * FL_PAGE_SIZE,
                  (source.kind[page] == FL_LIVE_DATA ? 2 : 1) * (uint64_t)FIRST + page);
    }
    forget_copies(&source);
    source.kind[0] = FL_LIVE_PARENT;
    fill_page(source.expected, FIRST);
    uint64_t wanted = 0;
    for (uint64_t page = 0; page < FL_FRAME_PAGES; page++)
        wanted += source.kind[page] == FL_LIVE_PARENT;
    cr_assert_eq(live_pack(&source, space.store, "child", "parent", parent.content_id, 0, &result),
                 0);
    uint64_t lost = lost_pages(&source);
    cr_assert(lost >= 1 && lost <= wanted, "%lu", lost); // some may be found in what is left of it
    struct bad_objects bad = find_bad();
    cr_assert_eq(bad.packs, 1);
    cr_assert_eq(bad.images, 2);
    cr_assert(bad.child);
    live_free(&source);
}

Test(live_failure, a_broken_frame_is_broken_in_the_child_as_well)
{
    with_a_broken_frame((struct live_mix){20, 10, 20}, 0);
}

// So much changes in six frames, of which the broken one is the first, that what is left of them is
// stored again: of the broken one nothing is.
Test(live_failure, a_broken_frame_is_not_stored_again)
{
    with_a_broken_frame((struct live_mix){0, 0, 1}, 6);
}

// With the identity of another page the child's content id would be a lie.
Test(live_failure, of_a_parent_whose_identities_are_not_its_pages)
{
    struct live_source source;
    struct fl_disk_pack_footer footer;
    make_parent();
    int fd = open_pack();
    off_t end = lseek(fd, 0, SEEK_END);
    cr_assert_eq(pread(fd, &footer, sizeof(footer), end - (off_t)sizeof(footer)),
                 (ssize_t)sizeof(footer));
    spoil(fd, footer.table_offset + (uint64_t)footer.frames * sizeof(struct fl_disk_frame) +
                  FL_IDENTITY_BYTES * (footer.pages / 2));
    close(fd);
    cr_assert_eq(pack_child(&source), -EBADMSG);
    expect_nothing(&source, 1, "its content id is not that of its pages");
    live_free(&source);
}
