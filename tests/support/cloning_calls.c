// SPDX-License-Identifier: Apache-2.0
//
// Preloaded: the ioctls that clone files, for file systems that cannot clone. It copies.
#include <errno.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int copy(int to, int from, off_t length)
{
    struct stat status;
    off_t in = 0;
    off_t out = 0;
    if (fstat(from, &status) < 0)
        return -1;
    off_t left = length > 0 ? length : status.st_size;
    while (left > 0) {
        ssize_t copied = copy_file_range(from, &in, to, &out, (size_t)left, 0);
        if (copied <= 0)
            return -1;
        left -= copied;
    }
    return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (request == FICLONE)
        return copy(fd, (int)(long)argument, 0);
    if (request == FICLONERANGE) {
        const struct file_clone_range *range = argument;
        return copy(fd, (int)range->src_fd, (off_t)range->src_length);
    }
    return (int)syscall(SYS_ioctl, fd, request, argument);
}
