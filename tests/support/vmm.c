// SPDX-License-Identifier: Apache-2.0
#include "tests/support/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

// --- memory ---

// Whatever the host has set for transparent huge pages: without them which pages are there does not
// depend on it. A test that wants some says so (vmm_advise()).
static uint8_t *map_region(uint64_t bytes, uint32_t page_bytes)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (page_bytes == HUGE)
        flags |= MAP_HUGETLB | (21 << 26); // MAP_HUGE_2MB
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    CHECK(base != MAP_FAILED, "mmap of %llu bytes: %s", (unsigned long long)bytes, strerror(errno));
    if (page_bytes == PAGE)
        madvise(base, bytes, MADV_NOHUGEPAGE); // refused by kernels that have no such pages
    return base;
}

void vmm_advise(const struct vmm *vmm, int advice)
{
    for (unsigned i = 0; i < vmm->regions; i++)
        CHECK(madvise(vmm->region[i].base, vmm->region[i].bytes, advice) == 0, "madvise(%d): %s",
              advice, strerror(errno));
}

void vmm_map_memory(struct vmm *vmm, const struct memory *memory, uint32_t page_bytes,
                    unsigned regions, enum vmm_protocol protocol)
{
    *vmm = (struct vmm){.uffd = -1,
                        .socket = -1,
                        .protocol = protocol,
                        .page_bytes = page_bytes,
                        .regions = regions,
                        .memory = memory};
    vmm->pages = (uint32_t)((memory->bytes + page_bytes - 1) / page_bytes);
    CHECK(regions <= VMM_REGIONS && regions <= vmm->pages, "%u regions", regions);
    uint32_t done = 0;
    for (unsigned i = 0; i < regions; i++) {
        uint32_t pages = (vmm->pages - done) / (regions - i);
        vmm->region[i] =
            (struct vmm_region){.base = map_region((uint64_t)pages * page_bytes, page_bytes),
                                .bytes = (uint64_t)pages * page_bytes,
                                .offset = (uint64_t)done * page_bytes};
        done += pages;
    }
    vmm->removed = calloc(vmm->pages, sizeof(*vmm->removed));
    CHECK(vmm->removed, "no memory");
}

int vmm_open_uffd(enum vmm_protocol protocol)
{
    int fd;
    if (protocol == VMM_MAIN) {
        int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
        CHECK(device >= 0, "/dev/userfaultfd: %s", strerror(errno));
        fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
        close(device);
    } else {
        fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    }
    CHECK(fd >= 0, "userfaultfd: %s", strerror(errno));
    return fd;
}

void vmm_enable(int uffd, uint64_t features)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE | features};
    CHECK(ioctl(uffd, UFFDIO_API, &api) == 0, "UFFDIO_API: %s", strerror(errno));
}

void vmm_register(struct vmm *vmm)
{
    for (unsigned i = 0; i < vmm->regions; i++) {
        struct uffdio_register request = {
            .range = {(uintptr_t)vmm->region[i].base, vmm->region[i].bytes},
            .mode = UFFDIO_REGISTER_MODE_MISSING};
        CHECK(ioctl(vmm->uffd, UFFDIO_REGISTER, &request) == 0, "UFFDIO_REGISTER: %s",
              strerror(errno));
    }
}

void vmm_map(struct vmm *vmm, const struct memory *memory, uint32_t page_bytes, unsigned regions,
             enum vmm_protocol protocol)
{
    vmm_map_memory(vmm, memory, page_bytes, regions, protocol);
    vmm->uffd = vmm_open_uffd(protocol);
    vmm_enable(vmm->uffd, 0);
    vmm_register(vmm);
}

void vmm_map_silent(struct vmm *vmm, const struct memory *memory, uint32_t page_bytes,
                    unsigned regions)
{
    struct uffdio_api api = {.api = UFFD_API};
    vmm_map_memory(vmm, memory, page_bytes, regions, VMM_1_7);
    vmm->uffd = vmm_open_uffd(VMM_1_7);
    CHECK(ioctl(vmm->uffd, UFFDIO_API, &api) == 0, "UFFDIO_API: %s", strerror(errno));
    vmm_register(vmm);
}

// --- templates ---

// The greeting is one line, with the descriptor.
static int receive_template(int socket, uint64_t *ret_bytes)
{
    char text[512] = "";
    unsigned long long bytes = 0;
    int fd = -1;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {text, sizeof(text) - 1};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    CHECK(got > 0, "no greeting: %s", got == 0 ? "the end" : strerror(errno));
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    CHECK(header, "no descriptor came with '%s'", text);
    memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    CHECK(sscanf(text, "{\"image\":\"image\",\"bytes\":%llu,\"page_size\":4096}\n", &bytes) == 1,
          "the greeting is %s", text);
    *ret_bytes = bytes;
    return fd;
}

void vmm_map_template(struct vmm *vmm, const struct memory *memory, unsigned regions,
                      const char *socket, int *given)
{
    uint64_t bytes = 0;
    vmm_map_memory(vmm, memory, PAGE, regions, VMM_1_12);
    vmm->socket = vmm_connect(socket);
    int fd = receive_template(vmm->socket, &bytes);
    CHECK(bytes == (uint64_t)vmm->pages * PAGE, "it has %llu bytes", (unsigned long long)bytes);
    for (unsigned i = 0; i < regions; i++) {
        const struct vmm_region *region = &vmm->region[i];
        CHECK(mmap(region->base, region->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd,
                   (off_t)region->offset) != MAP_FAILED,
              "mmap of a template: %s", strerror(errno));
    }
    if (given)
        *given = fd;
    else
        close(fd);
    vmm->uffd = vmm_open_uffd(VMM_1_12);
    vmm_enable(vmm->uffd, 0);
    vmm_register(vmm);
}

void vmm_handshake_template(struct vmm *vmm)
{
    char text[VMM_TEXT];
    size_t length = vmm_handshake_text(vmm, text);
    vmm_send(vmm->socket, text, length, &vmm->uffd, 1);
}

uint8_t *vmm_page(const struct vmm *vmm, uint32_t page)
{
    uint64_t offset = vmm_page_offset(vmm, page);
    unsigned i = vmm->regions - 1;
    while (offset < vmm->region[i].offset)
        i--;
    return vmm->region[i].base + (offset - vmm->region[i].offset);
}

uint64_t vmm_page_offset(const struct vmm *vmm, uint32_t page)
{
    return (uint64_t)page * vmm->page_bytes;
}

void vmm_remove(struct vmm *vmm, uint32_t page, uint32_t count)
{
    CHECK(madvise(vmm_page(vmm, page), (size_t)count * vmm->page_bytes, MADV_DONTNEED) == 0,
          "madvise: %s", strerror(errno));
}

// --- the handshake ---

// As serde writes it: fields in the order of the structure, no spaces.
static int region_text(const struct vmm *vmm, const struct vmm_region *region, char *text,
                       size_t size)
{
    char page_size[96] = "";
    if (vmm->protocol >= VMM_1_12)
        snprintf(page_size, sizeof(page_size), ",\"page_size\":%u,\"page_size_kib\":%u",
                 vmm->page_bytes, vmm->page_bytes);
    else if (vmm->protocol == VMM_1_7)
        snprintf(page_size, sizeof(page_size), ",\"page_size_kib\":%u", vmm->page_bytes);
    return snprintf(text, size, "{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu%s}",
                    (unsigned long long)(uintptr_t)region->base, (unsigned long long)region->bytes,
                    (unsigned long long)region->offset, page_size);
}

size_t vmm_handshake_text(const struct vmm *vmm, char text[VMM_TEXT])
{
    size_t used = 0;
    text[used++] = '[';
    for (unsigned i = 0; i < vmm->regions; i++) {
        if (i > 0)
            text[used++] = ',';
        used += (size_t)region_text(vmm, &vmm->region[i], text + used, VMM_TEXT - used);
        CHECK(used < VMM_TEXT - 2, "the handshake is too long");
    }
    text[used++] = ']';
    return used;
}

int vmm_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int place = open(path, O_PATH | O_CLOEXEC);
    CHECK(place >= 0, "%s: %s", path, strerror(errno));
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", place);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0, "%s: %s",
          path, strerror(errno));
    close(place);
    return fd;
}

void vmm_send(int socket, const void *text, size_t length, const int *fds, unsigned count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    // NOLINTNEXTLINE(performance-no-int-to-ptr): struct iovec has no const
    struct iovec iov = {(void *)(uintptr_t)text, length};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    }
    ssize_t sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    CHECK(sent == (ssize_t)length, "sendmsg: %zd of %zu bytes: %s", sent, length, strerror(errno));
}

void vmm_handshake(struct vmm *vmm, const char *socket)
{
    char text[VMM_TEXT];
    size_t length = vmm_handshake_text(vmm, text);
    vmm->socket = vmm_connect(socket);
    vmm_send(vmm->socket, text, length, &vmm->uffd, 1);
    if (vmm->protocol >= VMM_1_12)
        return;
    close(vmm->socket);
    vmm->socket = -1;
}

// --- poison ---

static __thread sigjmp_buf *escape;

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    if (escape)
        siglongjmp(*escape, 1);
    client_fail(__FILE__, __LINE__, "no SIGBUS", "at %p", info->si_addr);
}

void vmm_catch_sigbus(void)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
}

bool vmm_poisoned(const uint8_t *byte)
{
    sigjmp_buf place;
    escape = &place;
    bool poisoned = sigsetjmp(place, 1) != 0;
    if (!poisoned)
        (void)*(volatile const uint8_t *)byte;
    escape = NULL;
    return poisoned;
}

uint32_t vmm_first_range(const struct vmm *vmm, unsigned region, uint32_t *ret_ranges)
{
    uintptr_t base = (uintptr_t)vmm->region[region].base;
    uintptr_t start = (base + HUGE - 1) & ~(uintptr_t)(HUGE - 1);
    uintptr_t end = (base + vmm->region[region].bytes) & ~(uintptr_t)(HUGE - 1);
    *ret_ranges = start < end ? (uint32_t)((end - start) / HUGE) : 0;
    return (uint32_t)((vmm->region[region].offset + (start - base)) / PAGE);
}

uint32_t vmm_all_ranges(const struct vmm *vmm)
{
    uint32_t all = 0;
    uint32_t ranges;
    for (unsigned i = 0; i < vmm->regions; i++) {
        vmm_first_range(vmm, i, &ranges);
        all += ranges;
    }
    return all;
}
