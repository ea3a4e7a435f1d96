// SPDX-License-Identifier: Apache-2.0
//
// An open image as descriptors, and from descriptors, as another process gets them.
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

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

TestSuite(files, .init = setup, .fini = teardown, .timeout = 100);

static void remove_store(void)
{
    static const char *const names[] = {"left", "right", "other", "top"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        cr_assert_eq(remove_image(space.store, names[i]), 0);
    cr_assert_eq(collect_store(space.store, false, NULL), 0);
    cr_assert_eq(count_files(space.store, "packs"), 0);
    remove_tree(space.store);
    cr_assert_eq(access(space.store, F_OK), -1);
}

static bool same_runs(const struct fl_image *left, const struct fl_image *right)
{
    if (fl_image_pages(left) != fl_image_pages(right))
        return false;
    for (uint64_t page = 0; page < fl_image_pages(left); page++) {
        struct fl_run a = fl_image_run(left, page, 512);
        struct fl_run b = fl_image_run(right, page, 512);
        if (a.pages != b.pages || a.zero != b.zero || a.slot != b.slot || a.id.pack != b.id.pack ||
            a.id.frame != b.id.frame)
            return false;
    }
    return true;
}

Test(files, are_the_image_s_own_and_are_counted)
{
    struct fl_image *image;
    int fds[FILES_ROOM] = {-1, -1, -1, -1};
    cr_assert_eq(make_top(&space), 0);
    int before = count_descriptors();
    cr_assert_eq(open_image(space.store, "top", &image), 0);
    cr_assert_eq(fl_image_files(image, NULL, 0), TOP_FILES);
    cr_assert_eq(fl_image_files(image, fds, 2), TOP_FILES);
    cr_assert(fds[0] >= 0 && fds[1] >= 0);
    cr_assert_eq(fds[2], -1, "no more than there is room for");
    cr_assert_eq(count_descriptors(), before + TOP_FILES + 1, "and the store's packs/");
    fl_image_unref(image);
    cr_assert_eq(count_descriptors(), before);
}

Test(files, an_image_outlives_its_store)
{
    struct fl_image *first;
    struct fl_image *second;
    struct fl_image *third;
    int fds[FILES_ROOM];
    cr_assert_eq(make_top(&space), 0);
    int before = count_descriptors();
    cr_assert_eq(open_image(space.store, "top", &first), 0);
    remove_store();
    cr_assert_eq(duplicate_files(first, fds), TOP_FILES);
    cr_assert_eq(open_files(fds, TOP_FILES, &second), 0);
    cr_assert(same_runs(first, second), "the frames keep their ids");
    fl_image_unref(first);
    cr_assert_str_eq(fl_image_name(second), "top");
    cr_assert(image_is_file(second, space.memory));
    // And again, as at the next hand-over.
    cr_assert_eq(duplicate_files(second, fds), TOP_FILES);
    cr_assert_eq(open_files(fds, TOP_FILES, &third), 0);
    fl_image_unref(second);
    cr_assert(image_is_file(third, space.memory));
    fl_image_unref(third);
    cr_assert_eq(count_descriptors(), before);
}

Test(files, a_replaced_image_is_still_the_one_that_was_open)
{
    struct fl_image *image;
    struct fl_store *store;
    struct fl_pack_result result;
    struct fl_pack_options options = {.name = "top", .path = space.output, .replace = true};
    int fds[FILES_ROOM];
    cr_assert_eq(make_top(&space), 0);
    cr_assert_eq(top_files(&space, fds), TOP_FILES);
    cr_assert_eq(make_pages(space.output, 9000, 50), 0);
    cr_assert_eq(fl_store_open(space.store, false, &store, NULL), 0);
    cr_assert_eq(fl_store_pack(store, &options, &result, NULL), 0);
    fl_store_close(store);
    cr_assert_eq(open_files(fds, TOP_FILES, &image), 0);
    cr_assert(image_is_file(image, space.memory));
    fl_image_unref(image);
}

Test(files, an_image_of_nothing_but_zeros_has_no_packs)
{
    struct fl_image *image;
    struct fl_image *again;
    int fds[FILES_ROOM];
    cr_assert_eq(make_pages(space.memory, 1, 0), 0);
    int r = truncate(space.memory, 5000);
    cr_assert_eq(r, 0);
    cr_assert_eq(pack_file(space.store, "zeros", space.memory, NULL), 0);
    cr_assert_eq(open_image(space.store, "zeros", &image), 0);
    cr_assert_eq(duplicate_files(image, fds), 1);
    fl_image_unref(image);
    cr_assert_eq(open_files(fds, 1, &again), 0);
    cr_assert(image_is_file(again, space.memory));
    fl_image_unref(again);
}

Test(files, a_raw_memory_file_has_none)
{
    struct fl_image *image;
    int fd = -1;
    cr_assert_eq(make_pages(space.memory, 1, 20), 0);
    cr_assert_eq(fl_image_open_raw(space.memory, &image), 0);
    cr_assert_eq(fl_image_files(image, &fd, 1), 0);
    cr_assert_eq(fd, -1);
    fl_image_unref(image);
}

static void send_files(int socket, const int *fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * TOP_FILES)];
    } control = {.bytes = ""};
    char byte = 0;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * TOP_FILES);
    memcpy(CMSG_DATA(header), fds, sizeof(int) * TOP_FILES);
    cr_assert_eq(sendmsg(socket, &message, MSG_NOSIGNAL), 1);
}

static bool receive_files(int socket, int fds[TOP_FILES])
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * TOP_FILES)];
    } control = {.bytes = ""};
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1)
        return false;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_len != CMSG_LEN(sizeof(int) * TOP_FILES))
        return false;
    memcpy(fds, CMSG_DATA(header), sizeof(int) * TOP_FILES);
    return true;
}

// Both processes read the same open files at once, so neither may rely on their offset.
static int read_in_child(int socket)
{
    struct fl_image *image;
    int fds[TOP_FILES];
    if (!receive_files(socket, fds) || open_files(fds, TOP_FILES, &image) < 0)
        return 1;
    bool good = true;
    for (int i = 0; good && i < 20; i++)
        good = image_is_file(image, space.memory);
    fl_image_unref(image);
    return good ? 0 : 2;
}

Test(files, another_process_reads_the_image_at_the_same_time)
{
    struct fl_image *image;
    int fds[TOP_FILES];
    int sockets[2];
    int status;
    cr_assert_eq(make_top(&space), 0);
    cr_assert_eq(open_image(space.store, "top", &image), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        _exit(read_in_child(sockets[1]));
    remove_store();
    cr_assert_eq(fl_image_files(image, fds, TOP_FILES), TOP_FILES);
    off_t offset = lseek(fds[1], 12345, SEEK_SET);
    cr_assert_eq(offset, 12345);
    send_files(sockets[0], fds);
    for (int i = 0; i < 20; i++)
        cr_assert(image_is_file(image, space.memory));
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    offset = lseek(fds[1], 0, SEEK_CUR);
    cr_assert_eq(offset, 12345, "nobody has moved it");
    fl_image_unref(image);
    close(sockets[0]);
    close(sockets[1]);
}
