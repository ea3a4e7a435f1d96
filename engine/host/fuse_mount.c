// SPDX-License-Identifier: Apache-2.0
#include "engine/host/fuse_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "engine/host/proc_fd.h"
#include "engine/host/procfs.h"

#define CONNECTIONS "/sys/fs/fuse/connections"
// Of <linux/magic.h> of later kernels.
#ifndef FUSE_CTL_MAGIC
#define FUSE_CTL_MAGIC 0x65735543
#endif
enum { FUSECTL_PATH = 64, PROC_PATH = 96, TEXT = 1024, MINOR_BITS = 20 };

// Octal escapes stand for blanks in the kernel's list.
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from; to++) {
        bool octal = from[0] == '\\' && strspn(from + 1, "01234567") >= 3;
        if (octal) {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

static bool is_fuse(const char *type)
{
    return strcmp(type, "fuse") == 0 || strcmp(type, "fuseblk") == 0 ||
           strncmp(type, "fuse.", 5) == 0 || strncmp(type, "fuseblk.", 8) == 0 ||
           strcmp(type, "virtiofs") == 0;
}

// "ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [FIELD...] - TYPE SOURCE OPTIONS". False for all that is
// not FUSE.
static bool parse_mount(char *line, struct fl_fuse_mount *ret_mount)
{
    int root = 0;
    int path = 0;
    int end = 0;
    unsigned major = 0;
    const char *type = strstr(line, " - "); // a blank in a path is an escape
    size_t length = type ? strcspn(type + 3, " ") : 0;
    if (length == 0 || length >= sizeof(ret_mount->type))
        return false;
    memcpy(ret_mount->type, type + 3, length);
    ret_mount->type[length] = '\0';
    if (!is_fuse(ret_mount->type) ||
        sscanf(line, "%*d %*d %u:%u %n%*s %n%*s%n", // NOLINT(cert-err34-c)
               &major, &ret_mount->connection, &root, &path, &end) != 2 ||
        end <= path || end - path >= PATH_MAX)
        return false;
    ret_mount->connection |= major << MINOR_BITS; // 0 but for fuseblk
    memcpy(ret_mount->path, line + path, (size_t)(end - path));
    ret_mount->path[end - path] = '\0';
    ret_mount->whole = strncmp(line + root, "/ ", 2) == 0;
    unescape(ret_mount->path);
    return true;
}

int fl_fuse_mounts_each_of_all(int (*fn)(void *arg, const struct fl_fuse_mount *mount), void *arg)
{
    struct fl_fuse_mount mount;
    char *line = NULL;
    size_t size = 0;
    int result = 0;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    if (!file)
        return -errno;
    while (result == 0 && getline(&line, &size, file) > 0) {
        if (parse_mount(line, &mount))
            result = fn(arg, &mount);
    }
    free(line);
    fclose(file);
    return result;
}

struct ours {
    int (*fn)(void *arg, const struct fl_fuse_mount *mount);
    void *arg;
};

static int only_ours(void *arg, const struct fl_fuse_mount *mount)
{
    const struct ours *ours = arg;
    return strcmp(mount->type, FL_FUSE_TYPE) == 0 ? ours->fn(ours->arg, mount) : 0;
}

int fl_fuse_mounts_each(int (*fn)(void *arg, const struct fl_fuse_mount *mount), void *arg)
{
    struct ours ours = {fn, arg};
    return fl_fuse_mounts_each_of_all(only_ours, &ours);
}

struct search {
    const char *path;
    struct fl_fuse_mount *found;
    bool any;
};

// The last one is on top.
static int look(void *arg, const struct fl_fuse_mount *mount)
{
    struct search *search = arg;
    if (strcmp(search->path, mount->path) == 0) {
        *search->found = *mount;
        search->any = true;
    }
    return 0;
}

int fl_fuse_mount_find(const char *path, struct fl_fuse_mount *ret_mount)
{
    struct search search = {.path = path, .found = ret_mount};
    int error = fl_fuse_mounts_each(look, &search);
    return error ? error : search.any ? 0 : -ENOENT;
}

// Of what the kernel remembers: who serves it is not asked.
bool fl_fuse_mount_is_on_top(const char *path, unsigned connection)
{
    struct statx status;
    return statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW, STATX_TYPE, &status) ==
               0 &&
           status.stx_dev_major == 0 && status.stx_dev_minor == connection;
}

static int open_control(unsigned connection, const char *name, int flags)
{
    char path[FUSECTL_PATH];
    snprintf(path, sizeof(path), CONNECTIONS "/%u/%s", connection, name);
    int fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int fl_fuse_abort_open(unsigned connection)
{
    return open_control(connection, "abort", O_WRONLY);
}

int fl_fuse_abort_opened(int fd)
{
    return write(fd, "1", 1) == 1 ? 0 : -errno;
}

int fl_fuse_abort(unsigned connection)
{
    int fd = fl_fuse_abort_open(connection);
    if (fd < 0)
        return fd;
    int error = fl_fuse_abort_opened(fd);
    close(fd);
    return error;
}

int fl_fuse_waiting(unsigned connection)
{
    char text[16];
    int fd = open_control(connection, "waiting", O_RDONLY);
    if (fd < 0)
        return fd;
    ssize_t got = read(fd, text, sizeof(text) - 1);
    int error = -errno;
    close(fd);
    if (got < 0)
        return error;
    text[got] = '\0';
    return (int)strtol(text, NULL, 10);
}

// The directory is there without the file system, and then it is empty, as it is without a
// connection.
static bool is_controlled(void)
{
    struct statfs status;
    return statfs(CONNECTIONS, &status) == 0 && status.f_type == FUSE_CTL_MAGIC;
}

int fl_fuse_connections_each(int (*fn)(void *arg, int connection), void *arg)
{
    return is_controlled() ? fl_proc_each(CONNECTIONS, fn, arg) : -ENOENT;
}

int fl_fuse_control_mount(void)
{
    if (is_controlled())
        return 0;
    return mount("fusectl", CONNECTIONS, "fusectl", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0
               ? 0
               : -errno;
}

// Any user can have a FIFO of that name, in a mount namespace of his own: it must not make us wait.
static unsigned connection_of_state(const struct fl_proc_fd *fd)
{
    char path[PROC_PATH];
    struct fl_fuse_state_head head = {0};
    snprintf(path, sizeof(path), "/proc/%d/task/%d/fd/%d", (int)fd->pid, (int)fd->tid, fd->fd);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool whole = file >= 0 && pread(file, &head, sizeof(head), 0) == (ssize_t)sizeof(head);
    if (file >= 0)
        close(file);
    return whole && head.magic == FL_FUSE_STATE_MAGIC ? head.connection : 0;
}

unsigned fl_fuse_connection_of(const struct fl_proc_fd *fd)
{
    char path[PROC_PATH];
    char text[TEXT];
    uint64_t connection = 0;
    if (strncmp(fd->target, "/memfd:" FL_FUSE_STATE_NAME " ",
                sizeof("/memfd:" FL_FUSE_STATE_NAME)) == 0)
        return connection_of_state(fd);
    if (strcmp(fd->target, "/dev/fuse") != 0)
        return 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/fdinfo/%d", (int)fd->pid, (int)fd->tid, fd->fd);
    if (fl_proc_read(path, text, sizeof(text)) <= 0 ||
        !fl_proc_number(text, "fuse_connection:", &connection))
        return 0;
    return (unsigned)connection;
}
