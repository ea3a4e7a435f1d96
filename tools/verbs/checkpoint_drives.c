// SPDX-License-Identifier: Apache-2.0
//
// A clone is made in a file without a name, which gets its name when the image is published: a
// command that is killed leaves none behind.
#include "tools/verbs/checkpoint_drives.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FD_PATH = 64 };

static int open_beside(const char *path, mode_t mode)
{
    char *copy = strdup(path);
    int fd = copy ? open(dirname(copy), O_TMPFILE | O_RDWR | O_CLOEXEC, mode) : -1;
    int error = copy ? -errno : -ENOMEM;
    free(copy);
    return fd < 0 ? error : fd;
}

// Clones one block, and takes it away again.
static int try_clone(const struct drive *drive, const struct stat *status)
{
    uint64_t block = (uint64_t)status->st_blksize;
    struct file_clone_range range = {.src_fd = drive->source,
                                     .src_length = (uint64_t)status->st_size > block ? block : 0};
    if (ioctl(drive->clone, FICLONERANGE, &range) < 0)
        return -errno;
    return ftruncate(drive->clone, 0) < 0 ? -errno : 0;
}

static int drive_begin(struct drive *drive, const char *image, bool replace,
                       struct fl_error *ret_error)
{
    struct stat status;
    struct stat old;
    if (asprintf(&drive->name, "%s.%s", drive->path, image) < 0) {
        drive->name = NULL;
        return fl_fail(ret_error, -ENOMEM, "the drive %s cannot be cloned", drive->path);
    }
    bool there = lstat(drive->name, &old) == 0;
    if (there && (!replace || !S_ISREG(old.st_mode)))
        return fl_fail_plain(ret_error, -EEXIST, "%s is there already%s", drive->name,
                             replace ? ", and is no regular file" : "");
    drive->source = open(drive->path, O_RDONLY | O_CLOEXEC);
    if (drive->source < 0 || fstat(drive->source, &status) < 0)
        return fl_fail(ret_error, -errno, "the drive %s cannot be opened", drive->path);
    if (!S_ISREG(status.st_mode))
        return fl_fail_plain(ret_error, -EINVAL, "the drive %s is no regular file", drive->path);
    drive->clone = open_beside(drive->path, status.st_mode & 07777);
    int error = drive->clone < 0 ? drive->clone : try_clone(drive, &status);
    if (error == -EOPNOTSUPP || error == -ENOTTY || error == -EINVAL || error == -EXDEV)
        return fl_fail_plain(ret_error, -EOPNOTSUPP,
                             "the file system of %s cannot clone files, as XFS and Btrfs can: copy "
                             "the drive in another way, with --external",
                             drive->path);
    if (error)
        return fl_fail(ret_error, error, "the drive %s cannot be cloned", drive->path);
    if (geteuid() == 0 && fchown(drive->clone, status.st_uid, status.st_gid) < 0)
        return fl_fail(ret_error, -errno, "the clone of %s cannot have its owner", drive->path);
    return 0;
}

int drives_begin(struct drives *drives, const char *image, struct fl_error *ret_error)
{
    int error = 0;
    for (size_t i = 0; i < drives->count; i++) {
        drives->all[i].source = -1;
        drives->all[i].clone = -1;
    }
    for (size_t i = 0; i < drives->count && !error; i++)
        error = drive_begin(&drives->all[i], image, drives->replace, ret_error);
    return error;
}

int drives_flush(struct drives *drives, struct fl_error *ret_error)
{
    for (size_t i = 0; i < drives->count; i++) {
        if (fsync(drives->all[i].source) < 0)
            return fl_fail(ret_error, -errno, "the drive %s cannot be flushed",
                           drives->all[i].path);
    }
    return 0;
}

int drives_clone(struct drives *drives, struct fl_error *ret_error)
{
    for (size_t i = 0; i < drives->count; i++) {
        if (ioctl(drives->all[i].clone, FICLONE, drives->all[i].source) < 0)
            return fl_fail(ret_error, -errno, "the drive %s cannot be cloned", drives->all[i].path);
    }
    return 0;
}

// Over an old one: that changes places with it, and is there until it is certain that it is not
// needed any more.
static int replace_old(struct drive *drive, const char *fd)
{
    if (asprintf(&drive->old, "%s.%d", drive->name, (int)getpid()) < 0) {
        drive->old = NULL;
        return -ENOMEM;
    }
    int error = linkat(AT_FDCWD, fd, AT_FDCWD, drive->old, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
    if (!error && renameat2(AT_FDCWD, drive->old, AT_FDCWD, drive->name, RENAME_EXCHANGE) < 0) {
        error = -errno;
        unlink(drive->old);
    }
    if (error) {
        free(drive->old);
        drive->old = NULL;
    }
    return error;
}

static int name_clone(struct drive *drive, bool replace)
{
    char fd[FD_PATH];
    snprintf(fd, sizeof(fd), "/proc/self/fd/%d", drive->clone);
    if (linkat(AT_FDCWD, fd, AT_FDCWD, drive->name, AT_SYMLINK_FOLLOW) == 0)
        return 0;
    return errno == EEXIST && replace ? replace_old(drive, fd) : -errno;
}

int drives_keep(struct drives *drives, struct fl_error *ret_error)
{
    for (size_t i = 0; i < drives->count; i++) {
        struct drive *drive = &drives->all[i];
        int error = fsync(drive->clone) < 0 ? -errno : name_clone(drive, drives->replace);
        if (error)
            return fl_fail(ret_error, error, "the clone %s cannot be kept", drive->name);
        drive->made = true;
    }
    return 0;
}

void drives_undo(struct drives *drives)
{
    for (size_t i = 0; i < drives->count; i++) {
        struct drive *drive = &drives->all[i];
        if (drive->made && drive->old)
            rename(drive->old, drive->name);
        else if (drive->made)
            unlink(drive->name);
        drive->made = false;
        free(drive->old);
        drive->old = NULL;
    }
}

void drives_end(struct drives *drives)
{
    for (size_t i = 0; i < drives->count; i++) {
        struct drive *drive = &drives->all[i];
        if (drive->source >= 0)
            close(drive->source);
        if (drive->clone >= 0)
            close(drive->clone);
        if (drive->old)
            unlink(drive->old);
        free(drive->old);
        free(drive->name);
        *drive = (struct drive){.path = drive->path, .source = -1, .clone = -1};
    }
}
