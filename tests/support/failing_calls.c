// SPDX-License-Identifier: Apache-2.0
//
// Preloaded into a server: calls of its engines fail, as failing_calls.h says, now and then. Only
// those that the program itself makes: libraries are not what is tested.
// This file has calls of the C library of its own, which hardened headers define as inline
// functions.
#undef _FORTIFY_SOURCE

#include "tests/support/failing_calls.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct failing_calls *calls;
static const char *program_start; // of the program this is loaded into
static const char *program_end;

// The maps say where the program lies.
static void find_program(void)
{
    char line[512];
    char path[256];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    FILE *maps = length > 0 ? fopen("/proc/self/maps", "re") : NULL;
    while (maps && fgets(line, sizeof(line), maps)) {
        unsigned long from = 0;
        unsigned long to = 0;
        path[length] = '\0';
        if (!strstr(line, path) || sscanf(line, "%lx-%lx", &from, &to) != 2)
            continue;
        program_start = program_start ? program_start : (const char *)from;
        program_end = (const char *)to;
    }
    if (maps)
        fclose(maps);
}

__attribute__((constructor)) static void start(int argc, char **argv)
{
    const char *path = getenv(FAILING_CALLS);
    int fd =
        path && argc > 1 && strcmp(argv[1], "engine") == 0 ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    find_program();
    void *map = mmap(NULL, sizeof(*calls), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        calls = map;
}

static bool by_chance(void)
{
    static _Atomic uint64_t state; // 0: the first call fails
    uint64_t x = atomic_fetch_add(&state, 1) * 0x9e3779b97f4a7c15ULL;
    x = (x ^ x >> 31) * 0xbf58476d1ce4e5b9ULL;
    return (x >> 33) % atomic_load(&calls->every) == 0;
}

// The caller is where the call returns to.
static bool fails(enum failing what, const void *caller)
{
    const char *at = caller;
    if (!calls || !(atomic_load(&calls->what) & what) || at < program_start || at >= program_end ||
        !by_chance())
        return false;
    atomic_fetch_add(&calls->failed, 1);
    return true;
}
#define FAILS(what) fails(what, __builtin_return_address(0))

// POSIX says that a pointer to a function can come that way.
#define NEXT(name)                                                                                 \
    static __typeof__(&(name)) next;                                                               \
    if (!next)                                                                                     \
    *(void **)&next = dlsym(RTLD_NEXT, #name)

// --- memory ---

void *malloc(size_t bytes)
{
    NEXT(malloc);
    if (!FAILS(FAILING_HEAP))
        return next(bytes);
    errno = ENOMEM;
    return NULL;
}

void *calloc(size_t count, size_t bytes)
{
    NEXT(calloc);
    if (!FAILS(FAILING_HEAP))
        return next(count, bytes);
    errno = ENOMEM;
    return NULL;
}

void *realloc(void *old, size_t bytes)
{
    NEXT(realloc);
    if (!FAILS(FAILING_HEAP))
        return next(old, bytes);
    errno = ENOMEM;
    return NULL;
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    NEXT(aligned_alloc);
    if (!FAILS(FAILING_HEAP))
        return next(alignment, bytes);
    errno = ENOMEM;
    return NULL;
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    // Not by way of the next one: a look-up may allocate.
    if (!FAILS(FAILING_MAPPINGS))
        return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
    errno = ENOMEM;
    return MAP_FAILED;
}

int memfd_create(const char *name, unsigned flags)
{
    bool ledger = strcmp(name, "faultline-counters") == 0 && FAILS(FAILING_LEDGERS);
    if (!ledger && !FAILS(FAILING_MAPPINGS))
        return (int)syscall(SYS_memfd_create, name, flags);
    errno = EMFILE;
    return -1;
}

int ftruncate(int fd, off_t length)
{
    if (!FAILS(FAILING_MAPPINGS))
        return (int)syscall(SYS_ftruncate, fd, length);
    errno = ENOMEM;
    return -1;
}

// --- reads ---

// A notice to the kernel has no number of a request, and its kind in the place of the error.
static bool is_resend(const void *buf, size_t bytes)
{
    enum { NOTIFY_RESEND = 7 };
    const struct fuse_out_header *header = buf;
    return bytes == sizeof(*header) && header->len == bytes && header->unique == 0 &&
           header->error == NOTIFY_RESEND;
}

ssize_t write(int fd, const void *buf, size_t bytes)
{
    if (!is_resend(buf, bytes) || !FAILS(FAILING_RESENDS))
        return syscall(SYS_write, fd, buf, bytes);
    errno = EINVAL;
    return -1;
}

ssize_t pread(int fd, void *buf, size_t bytes, off_t offset)
{
    if (!FAILS(FAILING_READS))
        return syscall(SYS_pread64, fd, buf, bytes, offset);
    static _Atomic unsigned turn;
    unsigned how = atomic_fetch_add(&turn, 1) % 3;
    if (how == 0)
        return syscall(SYS_pread64, fd, buf, bytes / 2, offset);
    errno = how == 1 ? EINTR : EIO;
    return -1;
}

// In the entries that are about to be submitted.
static void spoil(struct io_uring *ring)
{
    static unsigned turn; // one thread submits
    for (unsigned at = ring->sq.sqe_head; at != ring->sq.sqe_tail; at++) {
        struct io_uring_sqe *sqe = &ring->sq.sqes[at & ring->sq.ring_mask];
        if (sqe->opcode != IORING_OP_READ || !by_chance())
            continue;
        if (turn++ % 2)
            sqe->fd = -1;
        else
            sqe->len = (sqe->len + 1) / 2;
        atomic_fetch_add(&calls->failed, 1);
    }
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait)
{
    static _Atomic unsigned turn;
    static const int errors[] = {-EAGAIN, -EINTR, -ENOMEM};
    NEXT(io_uring_submit_and_wait);
    if (FAILS(FAILING_SUBMITS))
        return errors[atomic_fetch_add(&turn, 1) % 3];
    if (calls && atomic_load(&calls->what) & FAILING_COMPLETES)
        spoil(ring);
    return next(ring, wait);
}

// --- pages ---

// include/uapi/linux/fs.h of Linux 6.7, userfaultfd.h of 6.6.
#define SCAN_REQUEST _IOC(_IOC_READ | _IOC_WRITE, 'f', 16, 96)
#define POISON_REQUEST _IOC(_IOC_READ | _IOC_WRITE, UFFDIO, 0x08, 32)

int open(const char *path, int flags, ...)
{
    static const char pagemap[] = "/pagemap";
    size_t length = strlen(path);
    va_list args;
    va_start(args, flags);
    unsigned mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, unsigned) : 0;
    va_end(args);
    bool is = length >= sizeof(pagemap) && strcmp(path + length - strlen(pagemap), pagemap) == 0;
    if (!is || !FAILS(FAILING_PAGEMAPS))
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    errno = EACCES;
    return -1;
}

static bool is_slow(uint64_t address)
{
    return calls && atomic_load(&calls->slow_ms) > 0 && address >= atomic_load(&calls->slow_from) &&
           address < atomic_load(&calls->slow_to);
}

// In small pieces, so that the test can end it.
static void be_slow(unsigned long request, const void *argument)
{
    uint64_t to = request == UFFDIO_COPY ? ((const struct uffdio_copy *)argument)->dst
                  : request == UFFDIO_ZEROPAGE
                      ? ((const struct uffdio_zeropage *)argument)->range.start
                      : 0;
    if (!is_slow(to))
        return;
    atomic_fetch_add(&calls->slow, 1);
    atomic_store(&calls->slow_thread, gettid());
    for (uint32_t ms = 0; ms < atomic_load(&calls->slow_ms); ms++)
        usleep(1000);
    atomic_store(&calls->slow_thread, 0);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *argument = va_arg(args, void *);
    va_end(args);
    bool fill =
        request == UFFDIO_COPY || request == UFFDIO_ZEROPAGE || request == UFFDIO_UNREGISTER;
    be_slow(request, argument);
    if ((request == SCAN_REQUEST && FAILS(FAILING_SCANS)) ||
        (request == POISON_REQUEST && FAILS(FAILING_POISONS))) {
        errno = ENOTTY;
        return -1;
    }
    if (!fill || !FAILS(FAILING_FILLS))
        return (int)syscall(SYS_ioctl, fd, request, argument);
    errno = ENOMEM;
    return -1;
}
