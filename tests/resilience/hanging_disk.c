// SPDX-License-Identifier: Apache-2.0
//
// A library to preload into an engine whose read-ahead is to hang. HANGING_DISK in the environment
// names a file. While that file exists, no large read of a pack returns, and no read through
// io_uring. Reads of one frame do return, and reads of images and traces: a fault must not wait for
// read-ahead. A read that is held up makes a file of the same name with ".held" behind it.
// This file has calls of the C library of its own, which hardened headers define as inline
// functions.
#undef _FORTIFY_SOURCE

#include <dlfcn.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

enum { LARGE = 128 << 10, PAUSE_US = 1000 }; // LARGE is more than a frame

static bool hangs(void)
{
    const char *path = getenv("HANGING_DISK");
    return path != NULL && access(path, F_OK) == 0;
}

static void say_held(void)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s.held", getenv("HANGING_DISK"));
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
}

static bool is_of_pack(int fd)
{
    char link[64];
    char path[4096] = "";
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    return length > 0 && strstr(path, "/packs/") != NULL;
}

EXPORTED ssize_t pread(int fd, void *buf, size_t size, off_t offset)
{
    if (size >= LARGE && hangs() && is_of_pack(fd)) {
        say_held();
        while (hangs())
            usleep(PAUSE_US);
    }
    return syscall(SYS_pread64, fd, buf, size, offset);
}

EXPORTED int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait)
{
    static int (*real)(struct io_uring *, unsigned);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "io_uring_submit_and_wait");
    if (!hangs())
        return real(ring, wait);
    if (io_uring_sq_ready(ring) >
        1) // one entry is always there: the engine wakes its reader with it
        say_held();
    usleep(PAUSE_US);
    return 0;
}
