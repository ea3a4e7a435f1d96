// SPDX-License-Identifier: Apache-2.0
//
// Descriptors that are not those of an image: each is refused, and none is left open.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/format.h"
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

TestSuite(files_refused, .init = setup, .fini = teardown, .timeout = 100);

// All descriptors are taken: `before` is the count without them.
static void expect_refused(const int *fds, uint32_t count, int error, int before)
{
    struct fl_image *untouched = (struct fl_image *)&space;
    struct fl_image *image = untouched;
    cr_assert_eq(open_files(fds, count, &image), error);
    cr_assert_eq(image, untouched);
    cr_assert_eq(count_descriptors(), before);
}

// What becomes of the descriptor at `at` if it is replaced by fd.
static void expect_refused_with(int at, int fd, int error)
{
    int fds[FILES_ROOM];
    cr_assert_geq(fd, 0);
    int before = count_descriptors() - 1;
    cr_assert_eq(top_files(&space, fds), TOP_FILES);
    close(fds[at]);
    fds[at] = fd;
    expect_refused(fds, TOP_FILES, error, before);
}

Test(files_refused, packs_in_the_wrong_order)
{
    int fds[FILES_ROOM];
    cr_assert_eq(make_top(&space), 0);
    int before = count_descriptors();
    for (int i = 0; i < TOP_FILES; i++) {
        for (int j = i + 1; j < TOP_FILES; j++) {
            cr_assert_eq(top_files(&space, fds), TOP_FILES);
            int fd = fds[i];
            fds[i] = fds[j];
            fds[j] = fd;
            expect_refused(fds, TOP_FILES, -EBADMSG, before);
        }
    }
}

Test(files_refused, too_few_and_too_many)
{
    int fds[FILES_ROOM];
    cr_assert_eq(make_top(&space), 0);
    int before = count_descriptors();
    expect_refused(NULL, 0, -EINVAL, before);
    for (uint32_t count = 1; count < TOP_FILES; count++) {
        cr_assert_eq(top_files(&space, fds), TOP_FILES);
        for (uint32_t i = count; i < TOP_FILES; i++)
            close(fds[i]);
        expect_refused(fds, count, -EINVAL, before);
    }
    for (uint32_t more = 1; more <= 2; more++) {
        cr_assert_eq(top_files(&space, fds), TOP_FILES);
        for (uint32_t i = 0; i < more; i++)
            fds[TOP_FILES + i] = fcntl(fds[TOP_FILES - 1], F_DUPFD_CLOEXEC, 0);
        expect_refused(fds, TOP_FILES + more, -EINVAL, before);
    }
}

Test(files_refused, a_pack_of_another_image)
{
    struct fl_image *other;
    int fds[FILES_ROOM];
    cr_assert_eq(make_top(&space), 0);
    for (int at = 1; at < TOP_FILES; at++) {
        cr_assert_eq(open_image(space.store, "other", &other), 0);
        cr_assert_eq(duplicate_files(other, fds), 2);
        fl_image_unref(other);
        close(fds[0]);
        expect_refused_with(at, fds[1], -EBADMSG);
    }
}

Test(files_refused, another_image_s_own_file)
{
    struct fl_image *left;
    struct fl_image *other;
    int fds[FILES_ROOM];
    cr_assert_eq(make_top(&space), 0);
    cr_assert_eq(open_image(space.store, "left", &left), 0);
    cr_assert_eq(duplicate_files(left, fds), 2);
    close(fds[1]);
    expect_refused_with(0, fds[0], -EINVAL); // it has one pack, not three
    cr_assert_eq(open_image(space.store, "other", &other), 0);
    int before = count_descriptors();
    cr_assert_eq(fl_image_files(left, fds, 1), 2);
    int file = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
    cr_assert_eq(duplicate_files(other, fds), 2);
    close(fds[0]);
    fds[0] = file;
    expect_refused(fds, 2, -EBADMSG, before);
    fl_image_unref(left);
    fl_image_unref(other);
}

static int nameless_file(void)
{
    int fd = open(space.dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    return fd;
}

static int copy_of(int fd)
{
    int copy = nameless_file();
    uint64_t bytes;
    cr_assert_eq(fl_file_size(fd, &bytes), 0);
    FL_AUTO_FREE char *content = malloc(bytes);
    cr_assert(content);
    cr_assert_eq(fl_pread_full(fd, content, bytes, 0), 0);
    cr_assert_eq(fl_pwrite_full(copy, content, bytes, 0), 0);
    return copy;
}

static int copy_of_top_s(int at)
{
    struct fl_image *image;
    int fds[FILES_ROOM];
    cr_assert_eq(open_image(space.store, "top", &image), 0);
    cr_assert_eq(fl_image_files(image, fds, FILES_ROOM), TOP_FILES);
    int copy = copy_of(fds[at]);
    fl_image_unref(image);
    return copy;
}

Test(files_refused, cut_short)
{
    static const int drop[] = {1, 8, 24, 2000};
    cr_assert_eq(make_top(&space), 0);
    for (int at = 0; at < TOP_FILES; at += TOP_FILES - 1) {
        for (size_t i = 0; i < sizeof(drop) / sizeof(drop[0]); i++) {
            uint64_t bytes;
            int fd = copy_of_top_s(at);
            cr_assert_eq(fl_file_size(fd, &bytes), 0);
            int r = ftruncate(fd, (off_t)bytes - drop[i]);
            cr_assert_eq(r, 0);
            expect_refused_with(at, fd, -EBADMSG);
        }
        expect_refused_with(at, nameless_file(), -EBADMSG);
    }
}

// Through the image's header, its map and its pack table. A slot of the map with its lowest bit
// changed is a slot all the same: only the checksum knows.
Test(files_refused, a_damaged_byte)
{
    uint64_t bytes;
    cr_assert_eq(make_top(&space), 0);
    int sample = copy_of_top_s(0);
    cr_assert_eq(fl_file_size(sample, &bytes), 0);
    close(sample);
    for (uint64_t at = 0; at < bytes; at += 37) {
        char byte;
        int fd = copy_of_top_s(0);
        cr_assert_eq(fl_pread_full(fd, &byte, 1, at), 0);
        byte ^= 1;
        cr_assert_eq(fl_pwrite_full(fd, &byte, 1, at), 0);
        expect_refused_with(0, fd, -EBADMSG);
    }
}

// The header's checksum is right: it is the name that is wrong.
static void expect_name_refused(const char *name, size_t len)
{
    struct fl_disk_image_header header;
    int fd = copy_of_top_s(0);
    cr_assert_eq(fl_pread_full(fd, &header, sizeof(header), 0), 0);
    memset(header.name, 0, sizeof(header.name));
    memcpy(header.name, name, len);
    header.checksum = fl_checksum(&header, offsetof(struct fl_disk_image_header, checksum));
    cr_assert_eq(fl_pwrite_full(fd, &header, sizeof(header), 0), 0);
    expect_refused_with(0, fd, -EBADMSG);
}

Test(files_refused, a_name_that_is_none)
{
    char endless[sizeof(((struct fl_disk_image_header *)NULL)->name)];
    memset(endless, 'x', sizeof(endless));
    cr_assert_eq(make_top(&space), 0);
    expect_name_refused("", 0);
    expect_name_refused("../top", 6);
    expect_name_refused("a b", 3);
    expect_name_refused(endless, FL_NAME_MAX + 1);
    expect_name_refused(endless, sizeof(endless));
}

Test(files_refused, what_is_no_regular_file)
{
    cr_assert_eq(make_top(&space), 0);
    for (int at = 0; at < TOP_FILES; at += TOP_FILES - 1) {
        int ends[2];
        cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
        expect_refused_with(at, ends[0], -EINVAL);
        close(ends[1]);
        expect_refused_with(at, open(space.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), -EINVAL);
        expect_refused_with(at, open("/dev/zero", O_RDONLY | O_CLOEXEC), -EINVAL);
        expect_refused_with(at, open(space.memory, O_RDONLY | O_CLOEXEC), -EBADMSG);
    }
}
