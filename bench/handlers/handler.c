// SPDX-License-Identifier: Apache-2.0
#include "bench/handlers/handler.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
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

#include "bench/common/clock.h"

enum { HANDSHAKE_MAX = 8192, BACKLOG = 4096, BATCH = 64 };
#define HUGE_PAGE (2u << 20)

// Written before the first thread starts.
static const struct bench_handler *self;
static unsigned char *memory;
static uint64_t memory_bytes;
static const unsigned char zeros[HUGE_PAGE];

// A statistic: relaxed order is enough.
static _Atomic uint64_t faults;

void bench_count_faults(uint64_t count)
{
    atomic_fetch_add_explicit(&faults, count, memory_order_relaxed);
}

static const struct bench_region *region_of(const struct bench_vm *vm, uint64_t addr)
{
    for (uint32_t i = 0; i < vm->regions; i++) {
        if (addr - vm->region[i].start < vm->region[i].bytes)
            return &vm->region[i];
    }
    return NULL;
}

bool bench_vm_find(const struct bench_vm *vm, uint64_t addr, const struct bench_region **ret_region,
                   uint64_t *ret_file_page)
{
    const struct bench_region *region = region_of(vm, addr);
    if (region == NULL)
        return false;
    *ret_region = region;
    *ret_file_page = (region->offset + (addr - region->start)) / vm->page_size;
    return true;
}

void bench_vm_wake(const struct bench_vm *vm, uint64_t addr)
{
    struct uffdio_range range = {.start = addr & ~(vm->page_size - 1), .len = vm->page_size};
    ioctl(vm->uffd, UFFDIO_WAKE, &range);
}

enum bench_answer bench_vm_resolve(const struct bench_vm *vm, uint64_t addr)
{
    uint64_t page = addr & ~(vm->page_size - 1);
    const struct bench_region *region = region_of(vm, page);
    if (region == NULL)
        return BENCH_COPIED;
    uint64_t at = page - region->start;
    const unsigned char *source = memory + region->offset + at;
    if (region->removed[at / vm->page_size])
        source = zeros;
    struct uffdio_copy copy = {.dst = page, .src = (uintptr_t)source, .len = vm->page_size};
    if (ioctl(vm->uffd, UFFDIO_COPY, &copy) == 0)
        return BENCH_COPIED;
    if (errno == EEXIST)
        bench_vm_wake(vm, page); // a page that is there may still have a waiter that was not woken
    return errno == EAGAIN ? BENCH_LATER : BENCH_COPIED;
}

void bench_vm_note_removed(const struct bench_vm *vm, uint64_t start, uint64_t end)
{
    for (uint64_t at = start; at < end; at += vm->page_size) {
        const struct bench_region *region = region_of(vm, at);
        if (region != NULL)
            region->removed[(at - region->start) / vm->page_size] = true;
    }
}

// Takes the events first: read() returns faults before events, even if the event happened first.
static void serve_batch(struct bench_vm *vm, const struct uffd_msg *msgs, size_t count)
{
    uint64_t fresh = 0;
    for (size_t i = 0; i < count; i++) {
        if (msgs[i].event == UFFD_EVENT_REMOVE)
            bench_vm_note_removed(vm, msgs[i].arg.remove.start, msgs[i].arg.remove.end);
    }
    for (size_t i = 0; i < count; i++) {
        if (msgs[i].event != UFFD_EVENT_PAGEFAULT)
            continue;
        fresh++;
        if (bench_vm_resolve(vm, msgs[i].arg.pagefault.address) == BENCH_LATER)
            bench_vm_wake(vm, msgs[i].arg.pagefault.address);
    }
    bench_count_faults(fresh);
}

bool bench_vm_serve_some(struct bench_vm *vm)
{
    struct uffd_msg msgs[BATCH];
    ssize_t got = read(vm->uffd, msgs, sizeof(msgs));
    if (got <= 0)
        return false;
    serve_batch(vm, msgs, (size_t)got / sizeof(msgs[0]));
    return true;
}

void bench_vm_free(struct bench_vm *vm)
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
    struct bench_vm *vm = arg;
    self->serve(vm);
    bench_vm_free(vm);
    return NULL;
}

static bool serve_alone(struct bench_vm *vm)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, vm_main, vm) != 0)
        return false;
    pthread_detach(thread);
    return true;
}

static bool add_region(struct bench_vm *vm, const json_t *entry)
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
    vm->region[vm->regions++] = (struct bench_region){
        .start = (uint64_t)start,
        .bytes = (uint64_t)bytes,
        .offset = (uint64_t)offset,
        .removed = removed,
    };
    return true;
}

static bool parse_regions(struct bench_vm *vm, const char *text, size_t len)
{
    json_t *array = json_loadb(text, len, 0, NULL);
    size_t count = json_array_size(array);
    bool good = count > 0 && count <= BENCH_REGIONS_MAX;
    for (size_t i = 0; good && i < count; i++)
        good = add_region(vm, json_array_get(array, i));
    json_decref(array);
    return good;
}

static bool receive_handshake(struct bench_vm *vm)
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
    struct bench_vm *vm = calloc(1, sizeof(*vm));
    int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (vm == NULL || sock < 0) {
        free(vm);
        return;
    }
    vm->sock = sock;
    vm->uffd = -1;
    vm->attached_ns = bench_now_ns();
    if (receive_handshake(vm) && (self->take != NULL ? self->take(vm) : serve_alone(vm)))
        return;
    fprintf(stderr, "%s: refused a VM: its handshake cannot be understood\n", self->name);
    bench_vm_free(vm);
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
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, BACKLOG) < 0) {
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

int bench_handler_run(const struct bench_handler *handler, const char *socket_path,
                      const char *memory_file)
{
    self = handler;
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
    int signals = signalfd(-1, &stop, SFD_CLOEXEC);
    if (!map_memory(memory_file)) {
        fprintf(stderr, "%s: cannot map %s: %s\n", self->name, memory_file, strerror(errno));
        return 1;
    }
    int listener = listen_at(socket_path);
    if (listener < 0 || signals < 0) {
        fprintf(stderr, "%s: cannot listen at %s: %s\n", self->name, socket_path,
                strerror(-listener));
        return 1;
    }
    accept_until(listener, signals);
    unlink(socket_path);
    printf("{\"faults\":%" PRIu64 ",\"cpu_us\":%" PRIu64 "}\n", atomic_load(&faults),
           bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1000);
    return 0;
}
