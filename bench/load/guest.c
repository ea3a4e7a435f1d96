// SPDX-License-Identifier: Apache-2.0
#include "bench/load/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define SMALL_PAGE 4096u

void *bench_map(uint64_t bytes, uint64_t page_size)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (page_size != SMALL_PAGE)
        flags |= MAP_HUGETLB | (21 << MAP_HUGE_SHIFT);
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
}

// Asks for the features that Firecracker asks for and no more, so that the server meets the same
// userfaultfd.
static int open_uffd(int *ret_fd)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    *ret_fd = fd;
    return 0;
}

static int register_missing(const struct bench_guest *guest)
{
    struct uffdio_register reg = {
        .range = {.start = (uintptr_t)guest->base, .len = guest->bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    return ioctl(guest->uffd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

static int connect_unix(const char *path, int *ret_fd)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    strcpy(addr.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    *ret_fd = fd;
    return 0;
}

// Sends the JSON array and the descriptor in one message, as Firecracker does. "part" says that the
// VM has only a part of the image; without it a server refuses a VM that is smaller than its image.
static int send_handshake(const struct bench_guest *guest)
{
    char json[256];
    int len = snprintf(json, sizeof(json),
                       "[{\"base_host_virt_addr\":%" PRIuPTR ",\"size\":%" PRIu64
                       ",\"offset\":0,\"page_size\":%" PRIu64 ",\"page_size_kib\":%" PRIu64
                       ",\"part\":true}]",
                       (uintptr_t)guest->base, guest->bytes, guest->page_size, guest->page_size);
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {.iov_base = json, .iov_len = (size_t)len};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.buf,
        .msg_controllen = sizeof(control.buf),
    };
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &guest->uffd, sizeof(int));
    ssize_t sent = sendmsg(guest->sock, &msg, MSG_NOSIGNAL);
    if (sent < 0)
        return -errno;
    return sent == len ? 0 : -EIO;
}

int bench_guest_start(struct bench_guest *ret_guest, const char *socket_path, uint64_t bytes,
                      uint64_t page_size)
{
    return bench_guest_start_advised(ret_guest, socket_path, bytes, page_size, MADV_NORMAL);
}

int bench_guest_start_advised(struct bench_guest *ret_guest, const char *socket_path,
                              uint64_t bytes, uint64_t page_size, int advice)
{
    struct bench_guest guest = {.bytes = bytes, .page_size = page_size, .uffd = -1, .sock = -1};
    guest.base = bench_map(bytes, page_size);
    if (guest.base == MAP_FAILED)
        return -errno;
    int err = madvise(guest.base, bytes, advice) == 0 ? 0 : -errno;
    if (err == 0)
        err = open_uffd(&guest.uffd);
    if (err == 0)
        err = register_missing(&guest);
    if (err == 0)
        err = connect_unix(socket_path, &guest.sock);
    if (err == 0)
        err = send_handshake(&guest);
    if (err < 0)
        bench_guest_stop(&guest);
    else
        *ret_guest = guest;
    return err;
}

// Receives the server's greeting: a line and the template's descriptor. -ENOENT: the template has
// gone.
static int receive_template(int sock, int *ret_fd)
{
    char text[512];
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {.iov_base = text, .iov_len = sizeof(text)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.buf,
        .msg_controllen = sizeof(control.buf),
    };
    ssize_t got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *cmsg = got > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    if (cmsg == NULL || cmsg->cmsg_type != SCM_RIGHTS)
        return got < 0 && errno != ECONNRESET ? -errno : -ENOENT;
    memcpy(ret_fd, CMSG_DATA(cmsg), sizeof(int));
    return 0;
}

static int map_template(struct bench_guest *guest)
{
    int fd;
    int err = receive_template(guest->sock, &fd);
    if (err < 0)
        return err;
    void *base =
        mmap(guest->base, guest->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0);
    err = base == MAP_FAILED ? -errno : 0;
    close(fd);
    return err;
}

int bench_guest_start_template(struct bench_guest *ret_guest, const char *socket_path,
                               uint64_t bytes)
{
    struct bench_guest guest = {.bytes = bytes, .page_size = SMALL_PAGE, .uffd = -1, .sock = -1};
    guest.base = bench_map(bytes, SMALL_PAGE);
    if (guest.base == MAP_FAILED)
        return -errno;
    int err = connect_unix(socket_path, &guest.sock);
    if (err == -ECONNREFUSED)
        err = -ENOENT;
    if (err == 0)
        err = map_template(&guest);
    if (err == 0)
        err = open_uffd(&guest.uffd);
    if (err == 0)
        err = register_missing(&guest);
    if (err == 0)
        err = send_handshake(&guest);
    if (err < 0)
        bench_guest_stop(&guest);
    else
        *ret_guest = guest;
    return err;
}

int bench_guest_map(struct bench_guest *ret_guest, const char *path, uint64_t bytes)
{
    struct bench_guest guest = {.bytes = bytes, .page_size = SMALL_PAGE, .uffd = -1, .sock = -1};
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int err = fd < 0 || fstat(fd, &st) < 0 ? -errno : 0;
    if (err == 0 && (uint64_t)st.st_size < bytes)
        err = -EINVAL;
    if (err == 0) {
        guest.base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
        err = guest.base == MAP_FAILED ? -errno : 0;
    }
    if (fd >= 0)
        close(fd);
    if (err == 0)
        *ret_guest = guest;
    return err;
}

void bench_guest_stop(struct bench_guest *guest)
{
    munmap(guest->base, guest->bytes);
    if (guest->sock >= 0)
        close(guest->sock);
    if (guest->uffd >= 0)
        close(guest->uffd);
}
