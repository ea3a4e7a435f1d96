// SPDX-License-Identifier: Apache-2.0
//
// Companions and labels of an image: they come back as they were, whatever becomes of the image.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "snapshot/io.h"
#include "tests/unit/repair_support.h"

enum { COUNT = 5 };
static const uint64_t sizes[COUNT] = {0, 1, FL_PAGE_SIZE, 70000, (3U << 20) + 5};
static const char *const names[COUNT] = {"vmstate", "empty", "a.page", "9", "B_large"};
static const char *const labels[] = {"zone=eu west", "app=web", "empty="};

static char paths[COUNT][128];
static struct fl_companion_file files[COUNT];

static void setup(void)
{
    uint64_t state = test_seed();
    repair_setup();
    for (int i = 0; i < COUNT; i++) {
        snprintf(paths[i], sizeof(paths[i]), "%s/companion-%d", space.dir, i);
        files[i] = (struct fl_companion_file){names[i], paths[i]};
        FL_AUTO_CLOSE int fd = open(paths[i], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        char page[FL_PAGE_SIZE];
        for (uint64_t at = 0; at < sizes[i]; at += sizeof(page)) {
            uint64_t left = sizes[i] - at;
            fill_page(page, test_random(&state));
            memset(page, 0, at / sizeof(page) % 16 == 5 ? sizeof(page) : 0);
            cr_assert_eq(fl_pwrite_full(fd, page, left < sizeof(page) ? left : sizeof(page), at),
                         0);
        }
    }
}

TestSuite(companions, .init = setup, .fini = repair_teardown, .timeout = 100);

static int pack_with(const char *name, const char *memory, const struct fl_companion_file *with,
                     size_t count, struct fl_progress progress)
{
    struct fl_store *store;
    struct fl_error error;
    struct fl_pack_result result;
    struct fl_pack_options options = {.name = name,
                                      .path = memory,
                                      .with = with,
                                      .with_count = count,
                                      .labels = labels,
                                      .labels_count = 3,
                                      .replace = true,
                                      .progress = progress};
    cr_assert_eq(fl_store_open(space.store, true, &store, &error), 0);
    int r = fl_store_pack(store, &options, &result, &error);
    fl_store_close(store);
    if (r < 0)
        fprintf(stderr, "%s\n", error.text);
    return r;
}

static void pack_all(const char *name, const char *memory)
{
    cr_assert_eq(pack_with(name, memory, files, COUNT, (struct fl_progress){NULL, NULL}), 0);
}

static int write_back(const char *name, const char *companion, const char *path)
{
    struct fl_store *store;
    struct fl_error error;
    struct fl_unpack_result result;
    struct fl_companion_file file = {companion, path};
    struct fl_unpack_options options = {
        .name = name, .with = &file, .with_count = 1, .force = true};
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0);
    int r = fl_store_unpack(store, &options, &result, &error);
    fl_store_close(store);
    if (r < 0)
        fprintf(stderr, "%s\n", error.text);
    return r;
}

static int tell(const char *name, struct fl_image_about *about)
{
    struct fl_store *store;
    struct fl_error error;
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0);
    int r = fl_store_image_about(store, name, about, &error);
    fl_store_close(store);
    return r;
}

static void expect_all(const char *name)
{
    struct fl_image_about about;
    cr_assert_eq(tell(name, &about), 0);
    cr_assert_eq(about.companions_count, COUNT);
    cr_assert_str_eq(about.companions[0].name, "9");
    cr_assert_str_eq(about.companions[4].name, "vmstate");
    cr_assert_eq(about.companions[4].bytes, 0);
    cr_assert_eq(about.labels_count, 3);
    cr_assert_str_eq(about.labels[0], "app=web");
    cr_assert_str_eq(about.labels[1], "empty=");
    cr_assert_str_eq(about.labels[2], "zone=eu west");
    cr_assert_str_eq(about.parent, "");
    fl_image_about_free(&about);
    for (int i = 0; i < COUNT; i++) {
        cr_assert_eq(write_back(name, names[i], space.output), 0);
        cr_assert(same_files(space.output, paths[i]), "%s", names[i]);
    }
}

static uint32_t version_of(const char *name)
{
    char path[256];
    struct fl_disk_image_header header;
    snprintf(path, sizeof(path), "%s/images/%s.img", space.store, name);
    FL_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_eq(fl_pread_full(fd, &header, sizeof(header), 0), 0);
    return header.version;
}

Test(companions, come_back_and_memory_is_as_without)
{
    struct fl_image *image;
    pack_all("with", child);
    struct fl_pack_result plain = pack("without", child, false);
    cr_assert_eq(open_image(space.store, "with", &image), 0);
    cr_assert_eq(fl_image_pages(image), plain.pages);
    cr_assert_arr_eq(fl_image_content_id(image), plain.content_id, 32);
    fl_image_unref(image);
    expect_right("with", child);
    expect_all("with");
    cr_assert_eq(verify().bad, 0);
    cr_assert_eq(verify().companions, COUNT);
    cr_assert_eq(version_of("with"), 3);
    cr_assert_eq(version_of("without"), 2, "earlier programs read what has nothing besides memory");
    cr_assert_eq(write_back("with", "none", space.output), -ENOENT);
    cr_assert_eq(write_back("without", "vmstate", space.output), -ENOENT);
}

Test(companions, share_their_pages)
{
    struct fl_image_detail before;
    pack_all("with", child);
    cr_assert_eq(inspect_image(space.store, "with", &before), 0);
    int packs = count_files(space.store, "packs");
    pack_all("again", child);
    cr_assert_eq(count_files(space.store, "packs"), packs, "nothing was new");
    expect_all("again");
    // Of memory alone: the companions' pages do not count.
    cr_assert_eq(before.info.pages, before.info.zero_pages + before.info.duplicate_pages +
                                        before.info.shared_pages + before.info.stored_pages);
}

Test(companions, stay_when_the_image_is_laid_out)
{
    struct fl_store *store;
    struct fl_error error;
    struct fl_optimize_result result;
    const struct fl_trace_entry touches[] = {{.page = 90}, {.page = 3}, {.page = 40}};
    pack_all("with", child);
    const struct fl_recording recording = {.entries = touches, .count = 3};
    cr_assert_eq(merge_trace(space.store, "with", &recording, 1, false), 0);
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0);
    cr_assert_eq(
        fl_store_optimize(store, &(struct fl_optimize_options){.name = "with"}, &result, &error),
        0);
    fl_store_close(store);
    cr_assert(!result.already);
    cr_assert_eq(collect_store(space.store, false, NULL), 0);
    expect_right("with", child);
    expect_all("with");
    cr_assert_eq(version_of("with"), 3);
    cr_assert_eq(verify().bad, 0);
}

// One frame of the pack that has them all, and no other image.
static void damage_companions(void)
{
    struct fl_image *image;
    struct fl_image_detail detail;
    FL_AUTO_CLOSE int fd = -1;
    char path[256];
    struct fl_disk_pack_footer footer;
    struct fl_disk_frame frame;
    uint64_t size;
    cr_assert_eq(inspect_image(space.store, "with", &detail), 0);
    cr_assert_eq(detail.info.companion_pages, 1 + 1 + 18 + 769);
    cr_assert_eq(open_image(space.store, "with", &image), 0);
    uint32_t count = fl_image_files(image, NULL, 0);
    int fds[8];
    fl_image_files(image, fds, 8);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[count - 1]);
    fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fl_file_size(fd, &size), 0);
    cr_assert_eq(fl_pread_full(fd, &footer, sizeof(footer), size - sizeof(footer)), 0);
    cr_assert_eq(fl_pread_full(fd, &frame, sizeof(frame),
                               footer.table_offset + (footer.frames - 3) * sizeof(frame)),
                 0);
    char byte;
    cr_assert_eq(fl_pread_full(fd, &byte, 1, frame.offset + frame.stored / 2), 0);
    byte = (char)~byte;
    cr_assert_eq(fl_pwrite_full(fd, &byte, 1, frame.offset + frame.stored / 2), 0);
    fl_image_unref(image);
}

Test(companions, damage_is_told_of_and_healed)
{
    pack_all("with", child);
    damage_companions();
    cr_assert_eq(verify().bad, 2, "the pack and the image");
    expect_right("with", child);
    int damaged = 0;
    for (int i = 0; i < COUNT; i++) {
        int r = write_back("with", names[i], space.output);
        cr_assert(r == 0 || r == -EBADMSG);
        damaged += r < 0;
    }
    cr_assert_eq(damaged, 1);
    // The file itself has the pages, as a memory file would.
    struct fl_repair_result repaired = {0};
    for (int i = 0; i < COUNT; i++) {
        if (sizes[i] > 0)
            repaired = repair(paths[i], NULL, false);
    }
    (void)repaired;
    expect_all("with");
    expect_right("with", child);
    cr_assert_eq(verify().bad, 0);
}

// What is said of them is damaged, and memory is not.
Test(companions, a_damaged_list_leaves_memory_alone)
{
    char path[256];
    uint64_t size;
    struct fl_image_about about;
    pack_all("with", child);
    snprintf(path, sizeof(path), "%s/images/with.img", space.store);
    FL_AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_eq(fl_file_size(fd, &size), 0);
    uint64_t at = size - sizeof(struct fl_disk_image_footer) - 10;
    cr_assert_eq(fl_pwrite_full(fd, "x", 1, at), 0);
    cr_assert_eq(tell("with", &about), -EBADMSG);
    cr_assert_eq(write_back("with", "vmstate", space.output), -EBADMSG);
    expect_right("with", child);
    cr_assert_eq(verify().bad, 1);
    // Of its last part, which says how long the map is, the image cannot do without.
    cr_assert_eq(fl_pwrite_full(fd, "x", 1, size - 100), 0);
    expect_unreadable("with");
    cr_assert_eq(verify().bad, 1);
}

static int change_file(void *arg, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    FL_AUTO_CLOSE int fd = open(arg, O_WRONLY | O_APPEND | O_CLOEXEC);
    return fd < 0 || write(fd, "more", 4) != 4;
}

Test(companions, wrong_ones_are_refused)
{
    static const struct fl_progress none = {NULL, NULL};
    struct fl_companion_file file = {".hidden", paths[1]};
    const struct fl_companion_file twice[] = {files[1], files[2], files[1]};
    cr_assert_eq(pack_with("with", child, &file, 1, none), -EINVAL);
    file = (struct fl_companion_file){"gone", "/nowhere/at/all"};
    cr_assert_eq(pack_with("with", child, &file, 1, none), -ENOENT);
    file.path = space.dir;
    cr_assert_eq(pack_with("with", child, &file, 1, none), -EINVAL);
    cr_assert_eq(pack_with("with", child, twice, 3, none), -EEXIST);
    cr_assert_eq(
        pack_with("with", child, files, COUNT, (struct fl_progress){change_file, paths[3]}),
        -EBUSY);
    cr_assert_eq(count_files(space.store, "images"), 1);
    cr_assert_eq(count_files(space.store, "tmp"), 0);
}
