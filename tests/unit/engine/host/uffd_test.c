// SPDX-License-Identifier: Apache-2.0
//
// How a userfaultfd is told from others, by whatever descriptor it is known.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/host/uffd.h"

enum { MANY = 200 };

static int new_uffd(void)
{
    int fd = fl_uffd_new();
    if (fd < 0)
        cr_skip_test("userfaultfd is not to be had here");
    return fd;
}

// As a client hands it over.
static int sent(int fd)
{
    int pair[2];
    char byte = 'u';
    struct iovec data = {&byte, 1};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    cr_assert_not_null(header);
    *header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    cr_assert_eq(sendmsg(pair[0], &message, 0), 1);
    cr_assert_eq(recvmsg(pair[1], &message, MSG_CMSG_CLOEXEC), 1);
    header = CMSG_FIRSTHDR(&message);
    cr_assert_not_null(header);
    int got = -1;
    memcpy(&got, CMSG_DATA(header), sizeof(got));
    close(pair[0]);
    close(pair[1]);
    return got;
}

Test(uffd, is_the_same_by_every_descriptor, .timeout = 60)
{
    int uffd = new_uffd();
    int other[] = {dup(uffd), sent(uffd)};
    cr_assert_neq(fl_uffd_inode(uffd), 0);
    for (int i = 0; i < 2; i++) {
        cr_expect(fl_uffd_same(uffd, other[i]));
        cr_expect_eq(fl_uffd_inode(uffd), fl_uffd_inode(other[i]));
        close(other[i]);
    }
    close(uffd);
}

Test(uffd, is_told_from_others_without_asking_the_kernel, .timeout = 60)
{
    int uffd[MANY];
    uint64_t inode[MANY];
    unsigned asked = 0;
    for (int i = 0; i < MANY; i++) {
        uffd[i] = new_uffd();
        inode[i] = fl_uffd_inode(uffd[i]);
    }
    for (int i = 1; i < MANY; i++) {
        asked += fl_uffd_may_be_same(inode[0], inode[i]);
        cr_expect_not(fl_uffd_same(uffd[0], uffd[i]));
    }
    cr_expect_eq(asked, 0);
    for (int i = 0; i < MANY; i++)
        close(uffd[i]);
}

// None of it says that two are different.
Test(uffd, of_which_nothing_is_known_may_be_any, .timeout = 60)
{
    cr_expect_eq(fl_uffd_inode(-1), 0);
    cr_expect(fl_uffd_may_be_same(0, 7));
    cr_expect(fl_uffd_may_be_same(7, 0));
    cr_expect(fl_uffd_may_be_same(7, 7));
    cr_expect_not(fl_uffd_may_be_same(7, 8));
}
