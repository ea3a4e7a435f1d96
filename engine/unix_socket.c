// SPDX-License-Identifier: Apache-2.0
#include "engine/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int fl_socket_connect(const char *path, int type)
{
    // A path may be longer than an address, a path to an open descriptor never is.
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int place = open(path, O_PATH | O_CLOEXEC);
    if (place < 0)
        return -errno;
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", place);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = fd < 0 ? -errno : 0;
    if (!error && connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        error = -errno;
    close(place);
    if (error && fd >= 0)
        close(fd);
    return error ? error : fd;
}

// 0: nothing is there, or the socket of somebody dead.
static int check_place(const char *path, int type)
{
    struct stat status;
    if (lstat(path, &status) != 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(status.st_mode))
        return -EEXIST;
    int fd = fl_socket_connect(path, type);
    if (fd >= 0)
        close(fd);
    if (fd >= 0 || fd == -EAGAIN || fd == -EPROTOTYPE)
        return -EADDRINUSE;
    return fd == -ECONNREFUSED || fd == -ENOENT ? 0 : fd;
}

static int open_directory(const char *path, const char **ret_base)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (length >= sizeof(directory))
        return -ENAMETOOLONG;
    memcpy(directory, path, length);
    directory[length] = '\0';
    *ret_base = slash ? slash + 1 : path;
    if (**ret_base == '\0')
        return -EISDIR;
    int fd = open(slash ? (length ? directory : "/") : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

// The directory may be somebody else's, who puts a link to something of ours in the socket's place:
// so what is changed is what was looked at.
static int set_access(int directory, const char *path, const struct stat *expected,
                      const struct fl_socket_access *access)
{
    struct stat status;
    char name[32];
    int error = 0;
    int place = openat(directory, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (place < 0)
        return -errno;
    snprintf(name, sizeof(name), "/proc/self/fd/%d", place);
    if (fstat(place, &status) != 0)
        error = -errno;
    else if (!S_ISSOCK(status.st_mode) || status.st_dev != expected->st_dev ||
             status.st_ino != expected->st_ino)
        error = -ESTALE;
    else if (chmod(name, access->mode) != 0 ||
             fchownat(place, "", access->uid, access->gid, AT_EMPTY_PATH) != 0)
        error = -errno;
    close(place);
    return error;
}

static int prepare(int fd, int directory, const char *temporary,
                   const struct fl_socket_access *access, struct fl_listening *listening)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", directory,
             temporary);
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        return -errno;
    if (fstatat(directory, temporary, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return -errno;
    int error = set_access(directory, temporary, &status, access);
    if (error)
        return error;
    if (listen(fd, SOMAXCONN) != 0)
        return -errno;
    *listening = (struct fl_listening){.fd = fd, .dev = status.st_dev, .ino = status.st_ino};
    return 0;
}

int fl_socket_listen(const char *path, int type, const struct fl_socket_access *access,
                     struct fl_listening *ret_listening)
{
    static _Atomic unsigned number;
    const char *base = NULL;
    char temporary[48];
    struct fl_listening listening;
    int error = check_place(path, type);
    if (error)
        return error;
    int directory = open_directory(path, &base);
    if (directory < 0)
        return directory;
    snprintf(temporary, sizeof(temporary), ".faultline-%d-%u", (int)getpid(), number++);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    error = fd < 0 ? -errno : prepare(fd, directory, temporary, access, &listening);
    if (!error && renameat(directory, temporary, directory, base) != 0)
        error = -errno;
    if (error) {
        unlinkat(directory, temporary, 0);
        if (fd >= 0)
            close(fd);
    } else {
        *ret_listening = listening;
    }
    close(directory);
    return error;
}

bool fl_socket_is_at(const char *path, const struct fl_listening *listening)
{
    struct stat status;
    return lstat(path, &status) == 0 && status.st_dev == listening->dev &&
           status.st_ino == listening->ino;
}

int fl_socket_set_access(const char *path, const struct fl_listening *listening,
                         const struct fl_socket_access *access)
{
    struct stat expected = {.st_dev = listening->dev, .st_ino = listening->ino};
    return set_access(AT_FDCWD, path, &expected, access);
}

void fl_socket_unlink(const char *path, const struct fl_listening *listening)
{
    if (fl_socket_is_at(path, listening))
        unlink(path);
}

void fl_socket_close(const char *path, struct fl_listening *listening)
{
    if (listening->fd < 0)
        return;
    fl_socket_unlink(path, listening);
    close(listening->fd);
    listening->fd = -1;
}
