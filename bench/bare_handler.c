// SPDX-License-Identifier: Apache-2.0
//
// bare_handler: the ceiling that the engine is measured against. It does what a fault costs at
// least and nothing else: one thread a VM, batched reads, one page a UFFDIO_COPY straight from the
// mapped memory file, all of which is in memory. No store, no checksums, no cache, no fairness, no
// limit.
//
// It is not safe to use for a guest: a REMOVE is noted without regard to a copy in flight, nothing
// survives its death, and what it cannot resolve it leaves waiting. Its arguments and its handshake
// are those of Firecracker's example handlers. On SIGTERM it prints its faults and its CPU time as
// JSON.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench/clock.h"
#include "bench/size.h"

enum { REGIONS_MAX = 8, BATCH = 64, HANDSHAKE_MAX = 8192 };
#define HUGE_PAGE (2u << 20)

struct region {
    uint64_t start;
    uint64_t bytes;
    uint64_t offset; // in the memory file
    bool *removed;   // by page
};

// Owned by its thread, which frees it.
struct vm {
    int uffd;
    int sock;
    uint64_t page_size;
    uint32_t regions;
    struct region region[REGIONS_MAX];
};

// Written before the first thread starts.
static unsigned char *memory;
static uint64_t memory_bytes;
static uint64_t spin_ns;
static const unsigned char zeros[HUGE_PAGE];

// Statistics only, no order needed.
static _Atomic uint64_t faults;

static void wake(const struct vm *vm, uint64_t page)
{
    struct uffdio_range range = {.start = page, .len = vm->page_size};
    ioctl(vm->uffd, UFFDIO_WAKE, &range);
}

static struct region *region_of(struct vm *vm, uint64_t addr)
{
    for (uint32_t i = 0; i < vm->regions; i++) {
        if (addr - vm->region[i].start < vm->region[i].bytes)
            return &vm->region[i];
    }
    return NULL;
}

// True if the page has to wait for a REMOVE to end (EAGAIN): its event must be read first.
static bool resolve(struct vm *vm, uint64_t addr)
{
    uint64_t page = addr & ~(vm->page_size - 1);
    struct region *region = region_of(vm, page);
    if (region == NULL)
        return false;
    uint64_t at = page - region->start;
    const unsigned char *source = memory + region->offset + at;
    if (region->removed[at / vm->page_size])
        source = zeros;
    struct uffdio_copy copy = {.dst = page, .src = (uintptr_t)source, .len = vm->page_size};
    if (ioctl(vm->uffd, UFFDIO_COPY, &copy) == 0)
        return false;
    if (errno == EEXIST)
        wake(vm, page); // that the page is there does not mean that its waiter was woken
    return errno == EAGAIN;
}

static void note_removed(struct vm *vm, uint64_t start, uint64_t end)
{
    for (uint64_t at = start; at < end; at += vm->page_size) {
        struct region *region = region_of(vm, at);
        if (region != NULL)
            region->removed[(at - region->start) / vm->page_size] = true;
    }
}

// Events first: read() gives faults before them, whatever came first.
static void serve_batch(struct vm *vm, const struct uffd_msg *msgs, size_t count)
{
    uint64_t fresh = 0;
    for (size_t i = 0; i < count; i++) {
        if (msgs[i].event == UFFD_EVENT_REMOVE)
            note_removed(vm, msgs[i].arg.remove.start, msgs[i].arg.remove.end);
    }
    for (size_t i = 0; i < count; i++) {
        if (msgs[i].event != UFFD_EVENT_PAGEFAULT)
            continue;
        fresh++;
        if (resolve(vm, msgs[i].arg.pagefault.address)) {
            // Woken, the toucher faults again and the message comes back, behind the event.
            wake(vm, msgs[i].arg.pagefault.address & ~(vm->page_size - 1));
        }
    }
    atomic_fetch_add_explicit(&faults, fresh, memory_order_relaxed);
}

// True if there was something to read.
static bool read_and_serve(struct vm *vm)
{
    struct uffd_msg msgs[BATCH];
    ssize_t got = read(vm->uffd, msgs, sizeof(msgs));
    if (got <= 0)
        return false;
    serve_batch(vm, msgs, (size_t)got / sizeof(msgs[0]));
    return true;
}

static void serve(struct vm *vm)
{
    struct pollfd fds[] = {{.fd = vm->uffd, .events = POLLIN}, {.fd = vm->sock, .events = POLLIN}};
    while (fds[1].revents == 0) {
        uint64_t idle_since = spin_ns > 0 ? bench_now_ns() : 0;
        do {
            while (read_and_serve(vm))
                idle_since = spin_ns > 0 ? bench_now_ns() : 0;
        } while (spin_ns > 0 && bench_now_ns() - idle_since < spin_ns);
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return;
    }
}

static void vm_free(struct vm *vm)
{
    for (uint32_t i = 0; i < vm->regions; i++)
        free(vm->region[i].removed);
    if (vm->uffd >= 0)
        close(vm->uffd);
    close(vm->sock);
    free(vm);
}

static void *vm_main(void *arg)
{
    struct vm *vm = arg;
    serve(vm);
    vm_free(vm);
    return NULL;
}

static bool add_region(struct vm *vm, const json_t *entry)
{
    json_int_t start, bytes, offset, page_size = 4096;
    if (json_unpack((json_t *)entry, "{s:I,s:I,s:I,s?I}", "base_host_virt_addr", &start, "size",
                    &bytes, "offset", &offset, "page_size", &page_size) != 0)
        return false;
    if ((page_size != 4096 && page_size != HUGE_PAGE) || offset < 0 || bytes <= 0 ||
        (uint64_t)offset > memory_bytes || (uint64_t)bytes > memory_bytes - (uint64_t)offset)
        return false;
    bool *removed = calloc((uint64_t)bytes / (uint64_t)page_size, sizeof(bool));
    if (removed == NULL)
        return false;
    vm->page_size = (uint64_t)page_size;
    vm->region[vm->regions++] = (struct region){
        .start = (uint64_t)start,
        .bytes = (uint64_t)bytes,
        .offset = (uint64_t)offset,
        .removed = removed,
    };
    return true;
}

static bool parse_regions(struct vm *vm, const char *text, size_t len)
{
    json_t *array = json_loadb(text, len, 0, NULL);
    size_t count = json_array_size(array);
    bool good = count > 0 && count <= REGIONS_MAX;
    for (size_t i = 0; good && i < count; i++)
        good = add_region(vm, json_array_get(array, i));
    json_decref(array);
    return good;
}

static bool receive_handshake(struct vm *vm)
{
    char text[HANDSHAKE_MAX];
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = text, .iov_len = sizeof(text)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.buf,
        .msg_controllen = sizeof(control.buf),
    };
    ssize_t got = recvmsg(vm->sock, &msg, MSG_CMSG_CLOEXEC);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    if (got <= 0 || cmsg == NULL || cmsg->cmsg_type != SCM_RIGHTS)
        return false;
    memcpy(&vm->uffd, CMSG_DATA(cmsg), sizeof(int));
    return parse_regions(vm, text, (size_t)got);
}

static void attach(int listener)
{
    struct vm *vm = calloc(1, sizeof(*vm));
    int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (vm == NULL || sock < 0) {
        free(vm);
        return;
    }
    vm->sock = sock;
    vm->uffd = -1;
    pthread_t thread;
    if (receive_handshake(vm) && pthread_create(&thread, NULL, vm_main, vm) == 0) {
        pthread_detach(thread);
        return;
    }
    fputs("bare_handler: refused a VM: its handshake is not one\n", stderr);
    vm_free(vm);
}

static bool map_memory(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return false;
    memory_bytes = (uint64_t)st.st_size;
    memory = mmap(NULL, memory_bytes, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    close(fd);
    return memory != MAP_FAILED;
}

static int listen_at(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    strcpy(addr.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 512) < 0) {
        int err = -errno;
        if (fd >= 0)
            close(fd);
        return err;
    }
    return fd;
}

static void accept_until(int listener, int signals)
{
    struct pollfd fds[] = {{.fd = listener, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    fputs("event=ready\n", stderr);
    while (poll(fds, 2, -1) >= 0 && fds[1].revents == 0) {
        if (fds[0].revents != 0)
            attach(listener);
    }
}

int main(int argc, char **argv)
{
    int first = 1;
    uint64_t spin_us = 0;
    bool spin = argc > 2 && strcmp(argv[1], "--spin") == 0;
    if (spin && bench_parse_size(argv[2], &spin_us))
        first = 3;
    if (argc - first != 2 || (spin && first == 1)) {
        fputs("usage: bare_handler [--spin MICROSECONDS] SOCKET MEMFILE\n", stderr);
        return 2;
    }
    spin_ns = spin_us * 1000;
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
    int signals = signalfd(-1, &stop, SFD_CLOEXEC);
    if (!map_memory(argv[first + 1])) {
        fprintf(stderr, "bare_handler: cannot map %s: %s\n", argv[first + 1], strerror(errno));
        return 1;
    }
    int listener = listen_at(argv[first]);
    if (listener < 0 || signals < 0) {
        fprintf(stderr, "bare_handler: cannot listen at %s: %s\n", argv[first],
                strerror(-listener));
        return 1;
    }
    accept_until(listener, signals);
    unlink(argv[first]);
    printf("{\"faults\":%" PRIu64 ",\"cpu_us\":%" PRIu64 "}\n", atomic_load(&faults),
           bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1000);
    return 0;
}
