// SPDX-License-Identifier: Apache-2.0
#include "snapshot/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "snapshot/io.h"

enum { FILE_MODE = 0640 };

int fl_random_id(uint64_t *ret_id)
{
    uint64_t id = 0;
    while (id == 0) {
        ssize_t got = getrandom(&id, sizeof(id), 0);
        if (got < 0 && errno != EINTR)
            return -errno;
        id = got == (ssize_t)sizeof(id) ? id & ~FL_PACK_ID_RAW : 0;
    }
    *ret_id = id;
    return 0;
}

int fl_temp_create(int dir_fd, const char *suffix, struct fl_temp *ret_temp)
{
    struct fl_temp temp = {.dir_fd = dir_fd, .fd = -1};
    *ret_temp = temp; // so that discarding is harmless from here on
    uint64_t id = 0;
    int r = fl_random_id(&id);
    if (r < 0)
        return r;
    snprintf(temp.name, sizeof(temp.name), ".%016" PRIx64 "%s", id, suffix);
    temp.fd = openat(dir_fd, temp.name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
    if (temp.fd < 0)
        return -errno;
    *ret_temp = temp;
    return 0;
}

static int rename_new(const struct fl_temp *temp, int to_dir_fd, const char *to_name)
{
    if (renameat2(temp->dir_fd, temp->name, to_dir_fd, to_name, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    // A file system without that flag: a link does not replace either. The second name goes on
    // discard.
    return linkat(temp->dir_fd, temp->name, to_dir_fd, to_name, 0) < 0 ? -errno : 1;
}

// If something that is not a regular file came there between the look and the exchange, puts it
// back.
static int keep_if_special(const struct fl_temp *temp, int to_dir_fd, const char *to_name)
{
    struct stat st;
    if (fstatat(temp->dir_fd, temp->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
        return 1;
    renameat2(temp->dir_fd, temp->name, to_dir_fd, to_name, RENAME_EXCHANGE);
    return -EMEDIUMTYPE;
}

// Returns 1 if the two files have changed places, so that this can be undone. Returns 0 if there
// was no file of that name, or if the file system cannot exchange files and the old one is gone.
static int rename_over(const struct fl_temp *temp, int to_dir_fd, const char *to_name)
{
    struct stat st;
    // A rename would replace a device or a link, and an exchange a directory.
    if (fstatat(to_dir_fd, to_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? -EISDIR : -EMEDIUMTYPE;
    if (renameat2(temp->dir_fd, temp->name, to_dir_fd, to_name, RENAME_EXCHANGE) == 0)
        return keep_if_special(temp, to_dir_fd, to_name);
    if (errno != ENOENT && errno != EINVAL && errno != ENOSYS)
        return -errno;
    return renameat(temp->dir_fd, temp->name, to_dir_fd, to_name) < 0 ? -errno : 0;
}

static void undo(struct fl_temp *temp, int to_dir_fd, const char *to_name, bool exchanged)
{
    if (!exchanged || renameat2(temp->dir_fd, temp->name, to_dir_fd, to_name, RENAME_EXCHANGE) < 0)
        unlinkat(to_dir_fd, to_name, 0);
}

int fl_temp_publish(struct fl_temp *temp, int to_dir_fd, const char *to_name, bool replace)
{
    if (fsync(temp->fd) < 0)
        return -errno;
    int named =
        replace ? rename_over(temp, to_dir_fd, to_name) : rename_new(temp, to_dir_fd, to_name);
    if (named < 0)
        return named;
    // If not, the temporary name still leads to a file, which fl_temp_discard removes: the same
    // file, or the one that was replaced.
    if (named == 0)
        temp->name[0] = '\0';
    int r = fl_sync_dir(to_dir_fd);
    if (r < 0)
        undo(temp, to_dir_fd, to_name, replace && named == 1);
    return r;
}

void fl_temp_discard(struct fl_temp *temp)
{
    // In this order: a lock of the file says whose the name is.
    if (temp->name[0] != '\0')
        unlinkat(temp->dir_fd, temp->name, 0);
    temp->name[0] = '\0';
    fl_cleanup_close(&temp->fd);
    temp->fd = -1;
}

int fl_scratch_create(int dir_fd, int *ret_fd)
{
    struct fl_temp temp;
    int r = fl_temp_create(dir_fd, ".scratch", &temp);
    if (r < 0)
        return r;
    unlinkat(dir_fd, temp.name, 0);
    *ret_fd = temp.fd;
    return 0;
}
