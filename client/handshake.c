// SPDX-License-Identifier: Apache-2.0
#include "client/handshake.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    // Holds one object of the handshake: its keys, five numbers of up to 20 digits, and a comma.
    REGION_TEXT = 224,
    HANDSHAKE_TEXT = FL_CLIENT_REGIONS_MAX * REGION_TEXT + 2
};

static int connect_socket(int fd, int place)
{
    struct timeval limit = {.tv_sec = FL_CLIENT_ANSWER_SECONDS};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", place);
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0)
        return -errno;
    int failed = 0;
    do {
        failed = connect(fd, (const struct sockaddr *)&address, sizeof(address));
    } while (failed && errno == EINTR);
    if (failed)
        return errno == EAGAIN ? -ETIMEDOUT : -errno;
    return 0;
}

static bool is_no_socket(int place)
{
    struct stat status;
    return fstat(place, &status) == 0 && !S_ISSOCK(status.st_mode);
}

// The path may be longer than the address of a socket can be, so the address is that of a
// descriptor opened there.
int fl_client_connect(const char *path)
{
    int place = open(path, O_PATH | O_CLOEXEC);
    if (place < 0)
        return -errno;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int error = fd < 0 ? -errno : connect_socket(fd, place);
    if (error == -ECONNREFUSED && is_no_socket(place)) // the kernel refuses that, too
        error = -ENOTSOCK;
    close(place);
    if (error && fd >= 0)
        close(fd);
    return error ? error : fd;
}

// Tries the device first, because its permissions may allow what the system call refuses; then the
// system call, because many containers may make it but have no device.
static int new_userfaultfd(void)
{
    int fd = -1;
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device >= 0) {
        fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
        close(device);
    }
    if (fd < 0)
        fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

// Asks for the features that Firecracker asks for and no other, because handlers are written for
// those.
static int open_userfaultfd(void)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
    int fd = new_userfaultfd();
    if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) != 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static int register_region(int fd, const struct fl_client_region *region)
{
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)region->address, .len = region->bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    if (madvise(region->address, region->bytes, MADV_DONTFORK) != 0 ||
        ioctl(fd, UFFDIO_REGISTER, &range) != 0)
        return -errno;
    return range.ioctls & (UINT64_C(1) << _UFFDIO_COPY) ? 0 : -EINVAL;
}

static size_t write_handshake(char *text, const struct fl_client *client)
{
    size_t length = 0;
    text[length++] = '[';
    for (size_t i = 0; i < client->count; i++) {
        const struct fl_client_region *region = &client->regions[i];
        length += (size_t)snprintf(
            text + length, REGION_TEXT,
            "%s{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu,\"page_size\":%u,"
            "\"page_size_kib\":%u,\"part\":true%s}", // page_size_kib is in bytes, despite its name
            i > 0 ? "," : "", (unsigned long long)(uintptr_t)region->address,
            (unsigned long long)region->bytes, (unsigned long long)region->offset,
            client->page_bytes, client->page_bytes, client->reserved ? ",\"reserved\":true" : "");
    }
    text[length++] = ']';
    return length;
}

static int send_handshake(const struct fl_client *client)
{
    char text[HANDSHAKE_TEXT];
    size_t length = write_handshake(text, client);
    struct iovec part = {.iov_base = text, .iov_len = length};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof(control));
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &client->userfaultfd, sizeof(int));
    ssize_t sent = 0;
    do {
        sent = sendmsg(client->socket, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return errno == EAGAIN ? -ETIMEDOUT : -errno;
    return (size_t)sent == length ? 0 : -EIO;
}

int fl_client_attach(struct fl_client *client)
{
    client->userfaultfd = open_userfaultfd();
    if (client->userfaultfd < 0)
        return client->userfaultfd;
    for (size_t i = 0; i < client->count; i++) {
        int error = register_region(client->userfaultfd, &client->regions[i]);
        if (error)
            return error;
    }
    return send_handshake(client);
}
