// SPDX-License-Identifier: Apache-2.0
#include "engine/host/fuse_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FUSECTL_PATH = 64 };

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

// "ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [FIELD...] - TYPE SOURCE OPTIONS". False for all but
// ours.
static bool parse_mount(char *line, struct fl_fuse_mount *ret_mount)
{
    int root = 0;
    int path = 0;
    int end = 0;
    unsigned major = 0;
    const char *type = strstr(line, " - " FL_FUSE_TYPE " ");
    if (!type ||
        sscanf(line, "%*d %*d %u:%u %n%*s %n%*s%n", // NOLINT(cert-err34-c)
               &major, &ret_mount->connection, &root, &path, &end) != 2 ||
        end <= path || end - path >= PATH_MAX)
        return false;
    memcpy(ret_mount->path, line + path, (size_t)(end - path));
    ret_mount->path[end - path] = '\0';
    ret_mount->whole = strncmp(line + root, "/ ", 2) == 0;
    unescape(ret_mount->path);
    return true;
}

int fl_fuse_mounts_each(int (*fn)(void *arg, const struct fl_fuse_mount *mount), void *arg)
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
    snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/%s", connection, name);
    int fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int fl_fuse_abort(unsigned connection)
{
    int fd = open_control(connection, "abort", O_WRONLY);
    if (fd < 0)
        return fd;
    int error = write(fd, "1", 1) == 1 ? 0 : -errno;
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
