// SPDX-License-Identifier: Apache-2.0
//
// The store as a whole: names, refusals, removal and collection, several processes, a lost index.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "snapshot/io.h"
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

TestSuite(store, .init = setup, .fini = teardown, .timeout = 100);

static void expect_good(void)
{
    uint64_t bad;
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
    cr_assert_eq(count_files(space.store, "tmp"), 0);
}

Test(store, names)
{
    char longest[FL_NAME_MAX + 2];
    memset(longest, 'x', sizeof(longest));
    longest[FL_NAME_MAX + 1] = '\0';
    cr_assert_not(fl_name_valid(longest));
    longest[FL_NAME_MAX] = '\0';
    cr_assert(fl_name_valid(longest));
    static const char *const bad[] = {"", ".", "..", ".a", "-a", "a/b", "a b", "a\n", "\xc3\xa4"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_not(fl_name_valid(bad[i]), "'%s'", bad[i]);
    cr_assert(fl_name_valid("Ubuntu-24.04_x"));
    cr_assert_eq(make_pages(space.memory, 1, 1), 0);
    cr_assert_eq(pack_file(space.store, "../evil", space.memory, NULL), -EINVAL);
    cr_assert_eq(pack_file(space.store, longest, space.memory, NULL), 0);
    expect_good();
}

Test(store, inputs_that_are_refused)
{
    char path[128];
    cr_assert_eq(make_pages(space.memory, 1, 0), 0);
    cr_assert_eq(pack_file(space.store, "empty", space.memory, NULL), -ENODATA);
    cr_assert_eq(pack_file(space.store, "directory", space.dir, NULL), -EINVAL);
    snprintf(path, sizeof(path), "%s/fifo", space.dir);
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_assert_eq(pack_file(space.store, "fifo", path, NULL), -EINVAL);
    cr_assert_eq(pack_file(space.store, "missing", space.output, NULL), -ENOENT);
    struct fl_image *image;
    cr_assert_eq(fl_image_open_raw(path, &image), -EINVAL);
    cr_assert_eq(fl_image_open_raw(space.memory, &image), -ENODATA);
    cr_assert_eq(count_files(space.store, "images"), 0);
    expect_good();
}

Test(store, places_that_are_no_store)
{
    struct fl_store *store;
    struct fl_reader *reader;
    char marker[128];
    cr_assert_eq(fl_store_open(space.store, false, &store, NULL), -ENOENT);
    cr_assert_eq(fl_reader_open(space.dir, &reader), -ENOENT);
    cr_assert_eq(make_pages(space.memory, 1, 1), 0);
    cr_assert_eq(fl_store_open(space.dir, true, &store, NULL), -ENOTEMPTY);
    cr_assert_eq(pack_file(space.store, "a", space.memory, NULL), 0);
    snprintf(marker, sizeof(marker), "%s/faultline-store", space.store);
    FL_AUTO_CLOSE int fd = open(marker, O_WRONLY | O_TRUNC | O_CLOEXEC);
    cr_assert_eq(fl_pwrite_full(fd, "faultline-store 2\n", 18, 0), 0);
    cr_assert_eq(fl_reader_open(space.store, &reader), -EPROTONOSUPPORT);
    cr_assert_eq(fl_store_open(space.store, true, &store, NULL), -EPROTONOSUPPORT);
}

Test(store, an_existing_name_is_refused_or_replaced)
{
    struct fl_store *store;
    struct fl_pack_result result;
    struct fl_image *before;
    struct fl_image *after;
    struct fl_pack_options options = {.name = "a", .path = space.output, .replace = true};
    cr_assert_eq(make_pages(space.memory, 1, 100), 0);
    cr_assert_eq(pack_file(space.store, "a", space.memory, NULL), 0);
    cr_assert_eq(make_pages(space.output, 7000, 90), 0);
    cr_assert_eq(pack_file(space.store, "a", space.output, NULL), -EEXIST);
    cr_assert_eq(open_image(space.store, "a", &before), 0);
    cr_assert(image_is_file(before, space.memory));
    cr_assert_eq(fl_store_open(space.store, false, &store, NULL), 0);
    cr_assert_eq(fl_store_pack(store, &options, &result, NULL), 0);
    fl_store_close(store);
    cr_assert_eq(open_image(space.store, "a", &after), 0);
    cr_assert(image_is_file(after, space.output));
    cr_assert(image_is_file(before, space.memory), "who has it open keeps it");
    fl_image_unref(before);
    fl_image_unref(after);
    expect_good();
}

Test(store, a_removed_image_stays_readable_for_who_has_it_open)
{
    struct fl_image *image;
    struct fl_gc_result result;
    cr_assert_eq(make_pages(space.memory, 1, 1000), 0);
    cr_assert_eq(pack_file(space.store, "a", space.memory, NULL), 0);
    cr_assert_eq(open_image(space.store, "a", &image), 0);
    cr_assert_eq(remove_image(space.store, "a"), 0);
    cr_assert_eq(remove_image(space.store, "a"), -ENOENT);
    cr_assert_eq(collect_store(space.store, false, &result), 0);
    cr_assert_eq(result.packs_removed, 1);
    cr_assert_gt(result.bytes_freed, 0);
    cr_assert_eq(count_files(space.store, "packs"), 0);
    cr_assert(image_is_file(image, space.memory));
    fl_image_unref(image);
    expect_good();
}

Test(store, gc_keeps_what_another_image_needs)
{
    struct fl_gc_result result;
    cr_assert_eq(make_pages(space.memory, 1, 600), 0);
    cr_assert_eq(pack_file(space.store, "base", space.memory, NULL), 0);
    cr_assert_eq(make_pages(space.memory, 1, 300), 0);
    cr_assert_eq(pack_file(space.store, "child", space.memory, NULL), 0);
    cr_assert_eq(remove_image(space.store, "base"), 0);
    cr_assert_eq(collect_store(space.store, false, &result), 0);
    cr_assert_eq(result.packs_removed, 0);
    cr_assert_eq(result.packs_kept, 1);
    cr_assert_gt(result.dead_bytes, 0, "half of the pack is nobody's");
    cr_assert_eq(unpack_file(space.store, "child", space.output), 0);
    cr_assert(same_files(space.memory, space.output));
    expect_good();
}

Test(store, gc_takes_leftovers)
{
    char path[160];
    struct fl_gc_result result;
    cr_assert_eq(make_pages(space.memory, 1, 10), 0);
    cr_assert_eq(pack_file(space.store, "a", space.memory, NULL), 0);
    snprintf(path, sizeof(path), "%s/tmp/.0123.pack", space.store);
    cr_assert_eq(make_pages(path, 1, 3), 0);
    cr_assert_eq(collect_store(space.store, false, &result), 0);
    cr_assert_eq(result.temporaries_removed, 1);
    cr_assert_eq(result.bytes_freed, 3 * FL_PAGE_SIZE);
    expect_good();
}

static void index_file(char path[160])
{
    snprintf(path, 160, "%s/index/data.mdb", space.store);
}

Test(store, a_lost_index_costs_sharing_until_gc_has_run)
{
    char path[160];
    struct fl_pack_result packed;
    struct fl_gc_result collected;
    index_file(path);
    cr_assert_eq(make_pages(space.memory, 1, 100), 0);
    cr_assert_eq(pack_file(space.store, "a", space.memory, NULL), 0);
    int r = unlink(path);
    cr_assert_eq(r, 0);
    cr_assert_eq(pack_file(space.store, "b", space.memory, &packed), 0);
    cr_assert_eq(packed.shared_pages, 0);
    r = unlink(path);
    cr_assert_eq(r, 0);
    cr_assert_eq(collect_store(space.store, false, &collected), 0);
    cr_assert_eq(collected.packs_indexed, 2);
    cr_assert_eq(pack_file(space.store, "c", space.memory, &packed), 0);
    cr_assert_eq(packed.shared_pages, 100);
    expect_good();
}

static void damage_index(const char *path, bool cut)
{
    char noise[3 * FL_PAGE_SIZE];
    memset(noise, 0x5a, sizeof(noise));
    if (cut) {
        int r = truncate(path, 3 * FL_PAGE_SIZE);
        cr_assert_eq(r, 0);
        return;
    }
    FL_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert_eq(fl_pwrite_full(fd, noise, sizeof(noise), 0), 0);
}

static void try_damaged_index(bool cut)
{
    char path[160];
    struct fl_pack_result packed;
    struct fl_gc_result collected;
    struct fl_image *image;
    index_file(path);
    cr_assert_eq(make_pages(space.memory, 1, 1000), 0);
    cr_assert_eq(pack_file(space.store, "a", space.memory, NULL), 0);
    damage_index(path, cut);
    cr_assert_eq(open_image(space.store, "a", &image), 0);
    cr_assert(image_is_file(image, space.memory));
    fl_image_unref(image);
    cr_assert_eq(pack_file(space.store, "b", space.memory, &packed), 0);
    cr_assert(packed.index_rebuilt);
    cr_assert_not(packed.index_damaged);
    cr_assert_eq(packed.shared_pages, 1000, "made anew before it is needed");
    damage_index(path, cut);
    cr_assert_eq(collect_store(space.store, false, &collected), 0);
    cr_assert(collected.index_rebuilt);
    cr_assert_eq(pack_file(space.store, "c", space.memory, &packed), 0);
    cr_assert_not(packed.index_rebuilt);
    cr_assert_eq(packed.shared_pages, 1000);
    expect_good();
}

Test(store, an_index_of_noise)
{
    try_damaged_index(false);
}

Test(store, an_index_cut_short)
{
    try_damaged_index(true);
}

static int stop_at_once(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    (void)done;
    (void)total;
    return 1;
}

Test(store, a_cancelled_pack_leaves_nothing)
{
    struct fl_store *store;
    struct fl_pack_result result;
    struct fl_pack_options options = {
        .name = "a", .path = space.memory, .progress = {.fn = stop_at_once}};
    cr_assert_eq(make_pages(space.memory, 1, 2000), 0);
    cr_assert_eq(fl_store_open(space.store, true, &store, NULL), 0);
    cr_assert_eq(fl_store_pack(store, &options, &result, NULL), -ECANCELED);
    fl_store_close(store);
    cr_assert_eq(count_files(space.store, "images"), 0);
    cr_assert_eq(count_files(space.store, "packs"), 0);
    expect_good();
}

struct meddling {
    const char *path;
    bool grow;
};

static int meddle(void *arg, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    const struct meddling *meddling = arg;
    return truncate(meddling->path, meddling->grow ? 9000000 : 5000) < 0 ? 1 : 0;
}

// The callback is called at the latest before the result is published, so the change is always
// seen.
static int pack_meddled(bool grow)
{
    struct fl_store *store;
    struct fl_pack_result result;
    struct meddling meddling = {.path = space.memory, .grow = grow};
    struct fl_pack_options options = {
        .name = "a", .path = space.memory, .progress = {.fn = meddle, .arg = &meddling}};
    cr_assert_eq(make_pages(space.memory, 1, 2000), 0);
    cr_assert_eq(fl_store_open(space.store, true, &store, NULL), 0);
    int r = fl_store_pack(store, &options, &result, NULL);
    fl_store_close(store);
    cr_assert_eq(count_files(space.store, "images"), 0);
    expect_good();
    return r;
}

Test(store, a_memory_file_that_changes_is_refused)
{
    cr_assert_eq(pack_meddled(false), -ENODATA);
    cr_assert_eq(pack_meddled(true), -EBUSY);
}

Test(store, a_raw_file_that_shrinks_is_an_error_and_not_zeros)
{
    struct fl_image *image;
    static char frame[FL_FRAME_PAGES * FL_PAGE_SIZE];
    cr_assert_eq(make_pages(space.memory, 1, 40), 0);
    cr_assert_eq(fl_image_open_raw(space.memory, &image), 0);
    struct fl_run run = fl_image_run(image, 20, 100);
    cr_assert_eq(run.pages, 12);
    cr_assert_eq(run.slot, 4);
    cr_assert_neq(run.id.pack >> 63, 0);
    cr_assert_eq(fl_frame_read(image, run.id, frame), 0);
    int r = truncate(space.memory, 5000);
    cr_assert_eq(r, 0);
    cr_assert_eq(fl_frame_read(image, run.id, frame), -ENODATA);
    struct fl_frame_id stranger = {.pack = run.id.pack + 1, .frame = 0};
    cr_assert_eq(fl_frame_pages(image, stranger), 0);
    cr_assert_eq(fl_frame_read(image, stranger, frame), -EINVAL);
    fl_image_unref(image);
}

// A process that packs `count` images; half of their pages are those of the other process.
static pid_t start_packer(int who, int count)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    for (int i = 0; i < count; i++) {
        char path[128];
        char name[32];
        snprintf(path, sizeof(path), "%s/memory-%d-%d", space.dir, who, i);
        snprintf(name, sizeof(name), "image-%d-%d", who, i);
        if (make_pages(path, (uint64_t)(i * 400 + who * 200), 400) < 0 ||
            pack_file(space.store, name, path, NULL) < 0)
            _exit(1);
    }
    _exit(0);
}

Test(store, two_processes_pack_into_one_store_while_a_third_collects)
{
    enum { IMAGES = 6 };
    struct fl_store *store;
    pid_t packers[2];
    cr_assert_eq(fl_store_open(space.store, true, &store, NULL), 0);
    fl_store_close(store);
    for (int who = 0; who < 2; who++)
        packers[who] = start_packer(who, IMAGES);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(collect_store(space.store, false, NULL), 0);
    for (int who = 0; who < 2; who++) {
        int status;
        cr_assert_eq(waitpid(packers[who], &status, 0), packers[who]);
        cr_assert_eq(status, 0);
    }
    for (int who = 0; who < 2; who++) {
        for (int i = 0; i < IMAGES; i++) {
            char path[128];
            char name[32];
            struct fl_image *image;
            snprintf(path, sizeof(path), "%s/memory-%d-%d", space.dir, who, i);
            snprintf(name, sizeof(name), "image-%d-%d", who, i);
            cr_assert_eq(open_image(space.store, name, &image), 0);
            cr_assert(image_is_file(image, path), "%s", name);
            fl_image_unref(image);
        }
    }
    expect_good();
}

// A file gives way to an unpacked image if it has to, a directory never.
Test(store, a_directory_does_not_give_way_to_a_file)
{
    uint64_t state = test_seed();
    cr_assert_eq(make_memory(space.memory, 50000, &state), 0);
    cr_assert_eq(pack_file(space.store, "one", space.memory, NULL), 0);
    int r = mkdir(space.output, 0700);
    cr_assert_eq(r, 0);
    cr_assert_eq(unpack_file(space.store, "one", space.output), -EISDIR);
    cr_assert_eq(count_files(space.output, "."), 0);
    r = rmdir(space.output);
    cr_assert_eq(r, 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(unpack_file(space.store, "one", space.output), 0);
    cr_assert(same_files(space.memory, space.output));
    cr_assert_eq(count_files(space.dir, "."), 3, "the store, the memory and the output");
}
