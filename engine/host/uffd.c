// SPDX-License-Identifier: Apache-2.0
#include "engine/host/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/host/proc_fd.h"
#include "snapshot/read.h"

#include <linux/kcmp.h>

// include/uapi/linux/userfaultfd.h of Linux 6.6; Debian 12 has the headers of 6.1.
#ifndef UFFDIO_POISON
struct uffdio_poison {
    struct uffdio_range range;
    __u64 mode;
    __s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif
#ifndef UFFDIO_POISON_MODE_DONTWAKE
#define UFFDIO_POISON_MODE_DONTWAKE (1ULL << 0)
#endif

static int call(int fd, unsigned long request, void *argument)
{
    return ioctl(fd, request, argument) < 0 ? -errno : 0;
}

// What the kernel writes back: bytes done when positive, else no progress (it may hold an errno).
static uint64_t progress(int64_t written)
{
    return written > 0 ? (uint64_t)written : 0;
}

static bool is_userfaultfd(int fd)
{
    char path[64];
    char target[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, target, sizeof(target) - 1);
    if (length < 0) // no /proc here: one that knows the ioctl says 0, or EINVAL if it is not ready
        return errno == ENOENT && fl_uffd_wake(fd, 1U << 20, FL_PAGE_SIZE) != -ENOTTY;
    target[length] = '\0';
    return strcmp(target, FL_PROC_UFFD_TARGET) == 0;
}

// The kernel tells in fdinfo, as "API: API:FEATURES:KNOWN" in hexadecimal, what the client asked
// for. The top bit of the features is the kernel's own mark "initialized".
static int read_features(int fd, struct fl_uffd_info *info)
{
    char path[64];
    char text[512];
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 && errno == ENOENT && access("/proc/self", F_OK) != 0)
        return 0; // no /proc here: what it asked for is unknown
    if (file < 0)
        return -errno;
    ssize_t length = read(file, text, sizeof(text) - 1);
    int error = length < 0 ? -errno : 0;
    close(file);
    if (error)
        return error;
    text[length] = '\0';
    const char *line = strstr(text, "API:");
    unsigned long long api = 0;
    unsigned long long features = 0;
    if (!line || sscanf(line, "API: %llx:%llx", &api, &features) != 2) // NOLINT(cert-err34-c)
        return -EPROTO;
    info->features = features & ~(1ULL << 31);
    return 0;
}

int fl_uffd_examine(int fd, struct fl_uffd_info *ret_info)
{
    if (!is_userfaultfd(fd))
        return -EINVAL;
    struct fl_uffd_info info = {0};
    int error = read_features(fd, &info);
    if (error)
        return error;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    // Before UFFDIO_API every other ioctl is refused; waking an empty range is harmless.
    info.ready = fl_uffd_wake(fd, 1U << 20, FL_PAGE_SIZE) == 0;
    *ret_info = info;
    return 0;
}

bool fl_uffd_tells_removes(int fd)
{
    struct fl_uffd_info info = {0};
    return read_features(fd, &info) == 0 && (info.features & UFFD_FEATURE_EVENT_REMOVE);
}

int fl_uffd_features(int fd, uint64_t *ret_features)
{
    struct fl_uffd_info info = {0};
    int error = read_features(fd, &info);
    *ret_features = info.features;
    return error;
}

int fl_uffd_open_info(int fd)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    return file < 0 ? -errno : file;
}

int fl_uffd_pending(int info, unsigned *ret_pending)
{
    char text[512];
    ssize_t length = pread(info, text, sizeof(text) - 1, 0);
    if (length < 0)
        return -errno;
    text[length] = '\0';
    const char *line = strstr(text, "pending:");
    if (!line || sscanf(line, "pending: %u", ret_pending) != 1) // NOLINT(cert-err34-c)
        return -EPROTO;
    return 0;
}

// O_NONBLOCK is a flag of the description that we share with the VMM, which may clear it at any
// moment: RWF_NOWAIT is ours alone. Kernels that do not know it for a userfaultfd leave us with the
// flag.
ssize_t fl_uffd_read(int fd, struct uffd_msg *messages, size_t count)
{
    struct iovec iov = {.iov_base = messages, .iov_len = count * sizeof(*messages)};
    ssize_t got = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
    if (got < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
        got = read(fd, messages, count * sizeof(*messages));
    return got < 0 ? -errno : got;
}

int fl_uffd_copy(int fd, uint64_t to, const void *from, uint64_t bytes, bool wake,
                 uint64_t *ret_done)
{
    struct uffdio_copy copy = {.dst = to,
                               .src = (uintptr_t)from,
                               .len = bytes,
                               .mode = wake ? 0 : UFFDIO_COPY_MODE_DONTWAKE};
    int error = call(fd, UFFDIO_COPY, &copy);
    *ret_done = progress(copy.copy);
    return error;
}

int fl_uffd_zero(int fd, uint64_t to, uint64_t bytes, bool wake, uint64_t *ret_done)
{
    struct uffdio_zeropage zero = {.range = {.start = to, .len = bytes},
                                   .mode = wake ? 0 : UFFDIO_ZEROPAGE_MODE_DONTWAKE};
    int error = call(fd, UFFDIO_ZEROPAGE, &zero);
    *ret_done = progress(zero.zeropage);
    return error;
}

static int poison(int fd, uint64_t to, uint64_t bytes, uint64_t mode)
{
    struct uffdio_poison poison = {.range = {.start = to, .len = bytes}, .mode = mode};
    int error = call(fd, UFFDIO_POISON, &poison);
    return error == -ENOTTY ? -ENOSYS : error;
}

int fl_uffd_poison(int fd, uint64_t to, uint64_t bytes)
{
    return poison(fd, to, bytes, 0);
}

int fl_uffd_poison_quietly(int fd, uint64_t to, uint64_t bytes)
{
    return poison(fd, to, bytes, UFFDIO_POISON_MODE_DONTWAKE);
}

// At the lowest mappable page, which no process registers: refused in any case.
bool fl_uffd_can_poison(int fd)
{
    return fl_uffd_poison(fd, 1U << 16, FL_PAGE_SIZE) != -ENOSYS;
}

int fl_uffd_wake(int fd, uint64_t start, uint64_t bytes)
{
    struct uffdio_range range = {.start = start, .len = bytes};
    return call(fd, UFFDIO_WAKE, &range);
}

// The kernel takes any range below the end of the address space (of 47 bits on x86-64, where the
// second half is refused; of 48 on arm64), registered or not.
void fl_uffd_wake_all(int fd)
{
    const uint64_t first = 1U << 20;
    const uint64_t half = 1ULL << 47;
    fl_uffd_wake(fd, first, half - (1U << 16) - first);
    fl_uffd_wake(fd, half, half - (1U << 16));
}

int fl_uffd_unregister(int fd, uint64_t start, uint64_t bytes)
{
    struct uffdio_range range = {.start = start, .len = bytes};
    return call(fd, UFFDIO_UNREGISTER, &range);
}

int fl_uffd_protect(int fd, uint64_t start, uint64_t bytes)
{
    struct uffdio_writeprotect protect = {.range = {.start = start, .len = bytes},
                                          .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    return call(fd, UFFDIO_WRITEPROTECT, &protect);
}

int fl_uffd_unprotect(int fd, uint64_t start, uint64_t bytes)
{
    struct uffdio_writeprotect protect = {.range = {.start = start, .len = bytes}};
    return call(fd, UFFDIO_WRITEPROTECT, &protect);
}

int fl_uffd_continue(int fd, uint64_t start, uint64_t bytes)
{
    struct uffdio_continue resume = {.range = {.start = start, .len = bytes}};
    return call(fd, UFFDIO_CONTINUE, &resume);
}

// A fill of a page that no process registers (the lowest mappable one): -EAGAIN and -ESRCH come
// before the kernel looks for the mapping.
static int probe_uffd(int fd)
{
    uint64_t done = 0;
    return fl_uffd_zero(fd, 1U << 16, FL_PAGE_SIZE, true, &done);
}

bool fl_uffd_alive(int fd)
{
    return probe_uffd(fd) != -ESRCH;
}

bool fl_uffd_removing(int fd)
{
    return probe_uffd(fd) == -EAGAIN;
}

bool fl_uffd_registered(int fd, uint64_t address, uint64_t page_bytes)
{
    // For private memory CONTINUE has nothing to map and is always refused, but with -ENOENT only
    // where nothing is registered (mm/userfaultfd.c looks for the mapping first).
    return fl_uffd_continue(fd, address, page_bytes) != -ENOENT;
}

// Each userfaultfd has an inode of its own (Linux 5.12), and kcmp is an option of the kernel.
bool fl_uffd_same(int a, int b)
{
    struct stat first;
    struct stat second;
    pid_t self = getpid();
    long order = syscall(SYS_kcmp, self, self, KCMP_FILE, a, b);
    if (order >= 0)
        return order == 0;
    return fstat(a, &first) == 0 && fstat(b, &second) == 0 && first.st_ino == second.st_ino &&
           first.st_dev == second.st_dev;
}

uint64_t fl_uffd_inode(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

int fl_uffd_register(int fd, uint64_t start, uint64_t bytes)
{
    struct uffdio_register request = {.range = {.start = start, .len = bytes},
                                      .mode = UFFDIO_REGISTER_MODE_MISSING};
    return call(fd, UFFDIO_REGISTER, &request);
}

int fl_uffd_register_protect(int fd, uint64_t start, uint64_t bytes)
{
    struct uffdio_register request = {.range = {.start = start, .len = bytes},
                                      .mode =
                                          UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};
    int error = call(fd, UFFDIO_REGISTER, &request);
    if (!error && !(request.ioctls & (1ULL << _UFFDIO_WRITEPROTECT)))
        error = -ENOTSUP;
    return error;
}

bool fl_uffd_owns(int fd, uint64_t start, uint64_t bytes)
{
    // To register what is registered with it already is nothing to do; what is another's is -EBUSY.
    return fl_uffd_register(fd, start, bytes) == 0;
}

// For the faults of user space alone any process may have one; containers that forbid the call
// often have the device.
int fl_uffd_new(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    int device = fd < 0 ? open("/dev/userfaultfd", O_RDWR | O_CLOEXEC) : -1;
    if (device >= 0) {
        fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
        close(device);
    }
    int error = fd < 0 ? -errno : call(fd, UFFDIO_API, &api);
    if (!error)
        return fd;
    if (fd >= 0)
        close(fd);
    return error;
}
