// SPDX-License-Identifier: Apache-2.0
//
// Preloaded into the command: counts the calls that change files, in the command and in the
// processes that it forks, and before the call numbered $CRASH_AT kills the command, whichever
// makes the call; or, with $CRASH_ERRNO, makes that call and all later ones that need space fail
// with it. With $CRASH_LOG it writes down the order of flushes (F) and renames (R). With
// $CRASH_CHILD only calls of the forked processes count, and that process is killed.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h> // renameat
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

// glibc's own headers declare these, so that -Wmissing-prototypes is content; the large-file names
// are the same calls on a 64-bit host.
ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t offset);

static atomic_long *calls; // shared with what is forked
static pid_t command;

__attribute__((constructor)) static void begin(void)
{
    void *page =
        mmap(NULL, sizeof(*calls), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        abort();
    calls = page;
    command = getpid();
}

static long setting(const char *name)
{
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

// Appends the name of a call to the file $CRASH_LOG: the order of flushing and renaming.
static void note(const char *call)
{
    const char *path = getenv("CRASH_LOG");
    if (!path)
        return;
    long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || syscall(SYS_write, fd, call, 1) != 1)
        abort();
    syscall(SYS_close, fd);
}

// 0, or -1 with errno set if the call is to fail.
static int step(int needs_space)
{
    bool child = setting("CRASH_CHILD") != 0;
    if (!calls || (child && getpid() == command))
        return 0;
    long number = atomic_fetch_add(calls, 1) + 1;
    long at = setting("CRASH_AT");
    int error = (int)setting("CRASH_ERRNO");
    if (at == 0 || number < at || (child && number > at)) // the next process may go on
        return 0;
    if (error == 0) {
        kill(child ? getpid() : command, SIGKILL);
        pause();
    }
    if (number > at && !needs_space)
        return 0;
    errno = error;
    return -1;
}

// Output to the user is not the store.
ssize_t write(int fd, const void *buf, size_t len)
{
    return fd > 2 && step(1) < 0 ? -1 : syscall(SYS_write, fd, buf, len);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    return step(1) < 0 ? -1 : syscall(SYS_pwrite64, fd, buf, len, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t offset)
{
    return step(1) < 0 ? -1 : syscall(SYS_pwrite64, fd, buf, len, offset);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    return step(1) < 0 ? -1 : syscall(SYS_pwritev, fd, iov, count, offset, 0);
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
    return fd > 2 && step(1) < 0 ? -1 : syscall(SYS_writev, fd, iov, count);
}

int fsync(int fd)
{
    note("F");
    return step(1) < 0 ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return step(1) < 0 ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int ftruncate(int fd, off_t size)
{
    return step(1) < 0 ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int renameat(int from, const char *old, int to, const char *new)
{
    note("R");
    return step(0) < 0 ? -1 : (int)syscall(SYS_renameat, from, old, to, new);
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
    note("R");
    return step(0) < 0 ? -1 : (int)syscall(SYS_renameat2, from, old, to, new, flags);
}

int unlinkat(int dir, const char *path, int flags)
{
    // Killed before it, yes; but a disk that is full still removes.
    if (setting("CRASH_ERRNO") == 0)
        step(0);
    return (int)syscall(SYS_unlinkat, dir, path, flags);
}

int mkdirat(int dir, const char *path, mode_t mode)
{
    return step(1) < 0 ? -1 : (int)syscall(SYS_mkdirat, dir, path, mode);
}

int mkdir(const char *path, mode_t mode)
{
    return step(1) < 0 ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list args;
        va_start(args, flags);
        mode = (mode_t)va_arg(args, unsigned);
        va_end(args);
        if (step(1) < 0)
            return -1;
    }
    return (int)syscall(SYS_openat, dir, path, flags, mode);
}
