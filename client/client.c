// SPDX-License-Identifier: Apache-2.0
#include <faultline_client.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

// linux/mman.h has it too, but does not go with sys/mman.h everywhere: log2 of 2 MiB at bit 26.
#ifndef MAP_HUGE_2MB
#define MAP_HUGE_2MB (21 << 26)
#endif

enum {
    CONNECT_SECONDS = 10,
    // An object of the handshake with its keys, five numbers of up to 20 digits, and a comma.
    REGION_TEXT = 192,
    GREETING_TEXT = 511,
    HANDSHAKE_TEXT = FL_CLIENT_REGIONS_MAX * REGION_TEXT + 2
};

struct fl_client {
    int socket;
    int userfaultfd;
    size_t count;
    struct fl_client_region regions[FL_CLIENT_REGIONS_MAX];
};

// What the checks need no address for.
static bool is_sound(const struct fl_client_region *region, uint32_t page_bytes)
{
    return region->bytes > 0 && region->bytes % page_bytes == 0 &&
           region->offset % FL_CLIENT_PAGE == 0 && region->bytes <= INT64_MAX &&
           region->offset <= INT64_MAX - region->bytes;
}

static int check_sizes(const struct fl_client_region *regions, size_t count, uint32_t page_bytes)
{
    if (page_bytes != FL_CLIENT_PAGE && page_bytes != FL_CLIENT_HUGE_PAGE)
        return -EINVAL;
    if (count == 0 || count > FL_CLIENT_REGIONS_MAX)
        return -EINVAL;
    for (size_t i = 0; i < count; i++) {
        if (!is_sound(&regions[i], page_bytes))
            return -EINVAL;
    }
    return 0;
}

static bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

// Neither in memory nor in the image.
static bool are_apart(const struct fl_client_region *a, const struct fl_client_region *b)
{
    return !overlap((uintptr_t)a->address, a->bytes, (uintptr_t)b->address, b->bytes) &&
           !overlap(a->offset, a->bytes, b->offset, b->bytes);
}

static int check_places(const struct fl_client_region *regions, size_t count, uint32_t page_bytes)
{
    for (size_t i = 0; i < count; i++) {
        uintptr_t address = (uintptr_t)regions[i].address;
        if (address == 0 || address % page_bytes != 0 || address > UINTPTR_MAX - regions[i].bytes)
            return -EINVAL;
        for (size_t j = 0; j < i; j++) {
            if (!are_apart(&regions[i], &regions[j]))
                return -EINVAL;
        }
    }
    return 0;
}

static int set_up_socket(int fd, int place)
{
    struct timeval limit = {.tv_sec = CONNECT_SECONDS};
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

// A path may be longer than a socket's address; a path to an open descriptor never is.
static int open_socket(const char *path)
{
    int place = open(path, O_PATH | O_CLOEXEC);
    if (place < 0)
        return -errno;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int error = fd < 0 ? -errno : set_up_socket(fd, place);
    close(place);
    if (error && fd >= 0)
        close(fd);
    return error ? error : fd;
}

// The device first: its permissions may allow what the system call refuses. The other way round,
// many containers have no device but the right to call.
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

// Exactly what Firecracker asks for, no more: handlers are written for that.
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

static size_t write_handshake(char *text, const struct fl_client *client, uint32_t page_bytes)
{
    size_t length = 0;
    text[length++] = '[';
    for (size_t i = 0; i < client->count; i++) {
        const struct fl_client_region *region = &client->regions[i];
        length += (size_t)snprintf(
            text + length, REGION_TEXT,
            "%s{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu,\"page_size\":%u,"
            "\"page_size_kib\":%u,\"part\":true}", // bytes as well, whatever its name says
            i > 0 ? "," : "", (unsigned long long)(uintptr_t)region->address,
            (unsigned long long)region->bytes, (unsigned long long)region->offset, page_bytes,
            page_bytes);
    }
    text[length++] = ']';
    return length;
}

static int send_handshake(const struct fl_client *client, uint32_t page_bytes)
{
    char text[HANDSHAKE_TEXT];
    size_t length = write_handshake(text, client, page_bytes);
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

static void close_descriptors(struct fl_client *client)
{
    if (client->userfaultfd >= 0)
        close(client->userfaultfd);
    if (client->socket >= 0)
        close(client->socket);
}

// The socket is open.
static int attach(struct fl_client *client, uint32_t page_bytes)
{
    client->userfaultfd = open_userfaultfd();
    if (client->userfaultfd < 0)
        return client->userfaultfd;
    for (size_t i = 0; i < client->count; i++) {
        int error = register_region(client->userfaultfd, &client->regions[i]);
        if (error)
            return error;
    }
    return send_handshake(client, page_bytes);
}

static struct fl_client *new_client(const struct fl_client_region *regions, size_t count)
{
    struct fl_client *client = malloc(sizeof(*client));
    if (!client)
        return NULL;
    *client = (struct fl_client){.socket = -1, .userfaultfd = -1, .count = count};
    memcpy(client->regions, regions, count * sizeof(*regions));
    return client;
}

static int finish(struct fl_client *client, int error, struct fl_client **ret_client)
{
    if (error) {
        close_descriptors(client);
        free(client);
    } else {
        *ret_client = client;
    }
    return error;
}

int fl_client_hand_over(const char *socket_path, const struct fl_client_region *regions,
                        size_t count, uint32_t page_bytes, struct fl_client **ret_client)
{
    int error = check_sizes(regions, count, page_bytes);
    if (!error)
        error = check_places(regions, count, page_bytes);
    if (error)
        return error;
    struct fl_client *client = new_client(regions, count);
    if (!client)
        return -ENOMEM;
    client->socket = open_socket(socket_path);
    return finish(client, client->socket < 0 ? client->socket : attach(client, page_bytes),
                  ret_client);
}

static void unmap(const struct fl_client_region *regions, size_t count)
{
    for (size_t i = 0; i < count; i++)
        munmap(regions[i].address, regions[i].bytes);
}

// Under mlockall(MCL_FUTURE) the kernel fills what it maps, with zeros, and a template's holes for
// all its clients: but not what nobody may touch.
static void *map_unfilled(void *address, size_t bytes, int flags, int fd, uint64_t offset)
{
    void *memory = mmap(address, bytes, PROT_NONE, flags, fd, (off_t)offset);
    if (memory == MAP_FAILED ||
        (munlock(memory, bytes) == 0 && mprotect(memory, bytes, PROT_READ | PROT_WRITE) == 0))
        return memory;
    int error = errno;
    munmap(memory, bytes);
    errno = error;
    return MAP_FAILED;
}

static int map(struct fl_client_region *regions, size_t count, uint32_t page_bytes)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (page_bytes == FL_CLIENT_HUGE_PAGE)
        flags |= MAP_HUGETLB | MAP_HUGE_2MB;
    for (size_t i = 0; i < count; i++) {
        void *address = map_unfilled(NULL, regions[i].bytes, flags, -1, 0);
        if (address == MAP_FAILED) {
            int error = -errno;
            unmap(regions, i);
            return error;
        }
        regions[i].address = address;
    }
    return 0;
}

int fl_client_map_regions(const char *socket_path, struct fl_client_region *regions, size_t count,
                          uint32_t page_bytes, struct fl_client **ret_client)
{
    struct fl_client_region mapped[FL_CLIENT_REGIONS_MAX];
    int error = check_sizes(regions, count, page_bytes);
    if (error)
        return error;
    memcpy(mapped, regions, count * sizeof(*regions));
    error = map(mapped, count, page_bytes);
    if (error)
        return error;
    error = fl_client_hand_over(socket_path, mapped, count, page_bytes, ret_client);
    if (error)
        unmap(mapped, count);
    else
        memcpy(regions, mapped, count * sizeof(*regions));
    return error;
}

int fl_client_map(const char *socket_path, uint64_t bytes, uint32_t page_bytes,
                  struct fl_client **ret_client, void **ret_address)
{
    struct fl_client_region region = {.bytes = bytes};
    int error = fl_client_map_regions(socket_path, &region, 1, page_bytes, ret_client);
    if (!error)
        *ret_address = region.address;
    return error;
}

// --- templates ---

// The greeting: one line of JSON, with the descriptor. Who has no template says so, and closes.
static int read_greeting(const char *text, int fd, uint64_t *ret_bytes)
{
    static const char key[] = "\"bytes\":";
    const char *at = strstr(text, key);
    char *end = NULL;
    if (fd < 0)
        return strstr(text, "\"error\"") ? -ENOENT : -EPROTO;
    *ret_bytes = at ? strtoull(at + sizeof(key) - 1, &end, 10) : 0;
    return *ret_bytes > 0 ? 0 : -EPROTO;
}

static int take_descriptor(struct msghdr *message)
{
    int fd = -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return fd;
}

// The template's descriptor, which can only be read, or -errno.
static int receive_template(int socket, uint64_t *ret_bytes)
{
    char text[GREETING_TEXT + 1] = "";
    struct timeval limit = {.tv_sec = CONNECT_SECONDS};
    struct iovec part = {.iov_base = text, .iov_len = GREETING_TEXT};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    if (setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0)
        return -errno;
    ssize_t got = 0;
    do {
        got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == EAGAIN ? -ETIMEDOUT : -errno;
    text[got] = '\0';
    int fd = take_descriptor(&message);
    int error = read_greeting(text, fd, ret_bytes);
    if (error && fd >= 0)
        close(fd);
    return error ? error : fd;
}

static int map_part(int fd, uint64_t bytes, struct fl_client_region *region)
{
    int flags = MAP_PRIVATE | MAP_NORESERVE | (region->address ? MAP_FIXED : 0);
    if (region->offset + region->bytes > bytes)
        return -EINVAL;
    void *address = map_unfilled(region->address, region->bytes, flags, fd, region->offset);
    if (address == MAP_FAILED)
        return -errno;
    region->address = address;
    return 0;
}

// *ret_mapped of the regions are mapped, in every case.
static int map_parts(struct fl_client *client, size_t *ret_mapped)
{
    uint64_t bytes = 0;
    int fd = receive_template(client->socket, &bytes);
    int error = fd < 0 ? fd : 0;
    while (!error && *ret_mapped < client->count) {
        error = map_part(fd, bytes, &client->regions[*ret_mapped]);
        *ret_mapped += !error;
    }
    if (fd >= 0)
        close(fd);
    return error ? error : check_places(client->regions, client->count, FL_CLIENT_PAGE);
}

int fl_client_map_template(const char *socket_path, struct fl_client_region *regions, size_t count,
                           struct fl_client **ret_client)
{
    size_t mapped = 0;
    int error = check_sizes(regions, count, FL_CLIENT_PAGE);
    if (error)
        return error;
    struct fl_client *client = new_client(regions, count);
    if (!client)
        return -ENOMEM;
    client->socket = open_socket(socket_path);
    error = client->socket < 0 ? client->socket : map_parts(client, &mapped);
    if (!error)
        error = attach(client, FL_CLIENT_PAGE);
    if (error)
        unmap(client->regions, mapped);
    else
        memcpy(regions, client->regions, count * sizeof(*regions));
    return finish(client, error, ret_client);
}

// The memory goes first: of memory that is still mapped when the last userfaultfd closes, the pages
// that are missing read as zeros.
void fl_client_close(struct fl_client *client)
{
    if (!client)
        return;
    unmap(client->regions, client->count);
    close_descriptors(client);
    free(client);
}
