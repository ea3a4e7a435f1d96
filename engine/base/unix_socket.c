// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A path is taken under the lock of its directory, in this order: look whether
// a live socket is there (connect() answers; then it stays), move a dead one aside, bind with
// mode 0, listen, set owner and mode, remove the dead one. The new inode is there before the old
// one goes, so that no two sockets have the same inode number: by that number struct fl_listening
// knows its own, and no function removes or changes what another process has put at the path since.
//
// A path that is too long for an address is reached through an open descriptor of its directory
// (/proc/self/fd/N/NAME); a name that is too long even for that is bound under a short one and
// renamed.
#include "engine/base/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/sockios.h>

#include "engine/base/log.h"

// include/uapi/linux/un.h, which cannot be included beside sys/un.h.
#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE (SIOCPROTOPRIVATE + 0)
#endif

enum {
    LOCK_TRIES = 20, // of a millisecond
    ADDRESS_BYTES = sizeof(((struct sockaddr_un *)0)->sun_path),
    SHORT_NAME = ADDRESS_BYTES - sizeof("/proc/self/fd/2147483647/"),
};

// The address of what is in the directory. The path itself where that fits: the kernel then tells
// others by that path that the socket lives (/proc/net/unix), which programs that clear directories
// out go by. A path to an open descriptor always fits.
static void set_address(struct sockaddr_un *address, const char *path, int directory,
                        const char *base)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (path && strlen(path) < ADDRESS_BYTES)
        memcpy(address->sun_path, path, strlen(path));
    else
        snprintf(address->sun_path, ADDRESS_BYTES, "/proc/self/fd/%d%s%s", directory,
                 *base ? "/" : "", base);
}

// The kernel refuses the connection to a file of any other kind, too.
static int refused_at(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && !S_ISSOCK(status.st_mode) ? -ENOTSOCK : -ECONNREFUSED;
}

static const char *why_no_socket(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return "it is no socket";
    if (S_ISREG(status.st_mode))
        return "it is a regular file, not a socket";
    if (S_ISDIR(status.st_mode))
        return "it is a directory, not a socket";
    return S_ISFIFO(status.st_mode) ? "it is a pipe, not a socket" : "it is a device, not a socket";
}

const char *fl_socket_why(const char *path, int error)
{
    switch (error) {
    case -ENOENT:
        return "there is no such socket";
    case -ENOTSOCK:
        return why_no_socket(path);
    case -ECONNREFUSED:
        return "no process listens there any more";
    case -EPROTOTYPE:
        return "it is a socket of another kind";
    case -EACCES:
    case -EPERM:
        return "permission denied";
    case -EAGAIN:
        return "the process that listens there accepts no connection";
    case -EMFILE:
        return "this process has too many files open";
    default:
        return strerror(-error);
    }
}

int fl_socket_connect(const char *path, int type)
{
    struct sockaddr_un address;
    bool fits = strlen(path) < ADDRESS_BYTES;
    int place = fits ? -1 : open(path, O_PATH | O_CLOEXEC);
    if (!fits && place < 0)
        return -errno;
    set_address(&address, path, place, "");
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = fd < 0 ? -errno : 0;
    if (!error && connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        error = -errno;
    if (place >= 0)
        close(place);
    if (error && fd >= 0)
        close(fd);
    if (error == -ECONNREFUSED)
        error = refused_at(path);
    return error ? error : fd;
}

// 0: nothing is there; 1: the socket of a process that is dead.
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
    return fd == -ECONNREFUSED || fd == -ENOENT ? 1 : fd;
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
    const char *name = slash ? (length ? directory : "/") : ".";
    int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == EACCES)
        fd = open(name, O_PATH | O_DIRECTORY | O_CLOEXEC); // it cannot be locked, then
    return fd < 0 ? -errno : fd;
}

// A server that finds a dead socket removes it, and must not remove what another has put there
// since: one at a time in a directory. Another process may hold the lock for ever: then it is
// not waited for. -EBUSY.
static int lock_directory(int directory)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(directory, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
            return 0; // a file system that knows no locks
        poll(NULL, 0, 1);
    }
    return -EBUSY;
}

#ifndef SYS_fchmodat2 // Linux 6.6; Debian 12 has the headers of 6.1
#define SYS_fchmodat2 452
#endif

// A path by which it can be done is there where /proc is: a handler in a chroot may have none. The
// kernel that has no call for that either (before 6.6) is asked by the name.
static int set_mode(int place, int directory, const char *name, mode_t mode)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", place);
    if (chmod(path, mode) == 0)
        return 0;
    if (errno != ENOENT)
        return -errno;
    if (syscall(SYS_fchmodat2, place, "", mode, AT_EMPTY_PATH) == 0)
        return 0;
    return errno == ENOSYS && fchmodat(directory, name, mode, 0) == 0 ? 0 : -errno;
}

// At no time may a process connect that may do so neither before nor after: what both modes allow
// is in force while the owner changes. For a new socket, whose mode is 0, that is nothing.
static int change_access(int place, int directory, const char *name, mode_t now,
                         const struct fl_socket_access *access)
{
    int error = set_mode(place, directory, name, now & access->mode);
    if (error)
        return error;
    if (fchownat(place, "", access->uid, access->gid, AT_EMPTY_PATH) != 0) {
        error = -errno;
        set_mode(place, directory, name, now);
        return error;
    }
    return set_mode(place, directory, name, access->mode);
}

// The directory may be another user's, who puts a link to something of ours in the socket's place:
// so what is changed is what was looked at.
static int set_access(int directory, const char *path, const struct stat *expected,
                      const struct fl_socket_access *access)
{
    struct stat status;
    int error = 0;
    int place = openat(directory, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (place < 0)
        return -errno;
    if (fstat(place, &status) != 0)
        error = -errno;
    else if (!S_ISSOCK(status.st_mode) || status.st_dev != expected->st_dev ||
             status.st_ino != expected->st_ino)
        error = -ESTALE;
    else
        error = change_access(place, directory, path, status.st_mode & 07777, access);
    close(place);
    return error;
}

static void temporary_name(char name[48])
{
    static _Atomic unsigned number;
    snprintf(name, 48, ".faultline-%d-%u", (int)getpid(), number++);
}

// The socket's file is there from bind() on: as the kernel must know it by its final path, it
// cannot be made elsewhere and renamed. So its mode is 0 until all else is done. Before that a
// client is told EACCES; from the moment in which the mode is right, it is accepted. With
// CAP_DAC_OVERRIDE the mode is no hindrance: it is told ECONNREFUSED, until listen(), which is the
// next call.
static int bind_to(int fd, const struct sockaddr_un *address)
{
    return fchmod(fd, 0) != 0 || bind(fd, (const struct sockaddr *)address, sizeof(*address)) != 0
               ? -errno
               : 0;
}

// The mode comes last: a client that it lets in must find a socket that listens, and no client may
// get in by the rights of an owner or a group that change at once.
static int begin_listening(int fd, int directory, const char *base,
                           const struct fl_socket_access *access, struct fl_listening *listening)
{
    struct stat status = {0};
    int error = listen(fd, SOMAXCONN) != 0 ? -errno : 0;
    if (!error && fstatat(directory, base, &status, AT_SYMLINK_NOFOLLOW) != 0)
        error = -errno;
    if (!error)
        error = set_access(directory, base, &status, access);
    *listening = (struct fl_listening){.fd = fd, .dev = status.st_dev, .ino = status.st_ino};
    return error;
}

static int bind_in_place(int fd, int directory, const char *path, const char *base,
                         const struct fl_socket_access *access, struct fl_listening *listening)
{
    struct sockaddr_un address;
    set_address(&address, path, directory, base);
    int error = bind_to(fd, &address);
    if (error)
        return error;
    error = begin_listening(fd, directory, base, access, listening);
    if (error)
        unlinkat(directory, base, 0);
    return error;
}

// A name that no address has room for: it gets that when all is done.
static int bind_and_rename(int fd, int directory, const char *base,
                           const struct fl_socket_access *access, struct fl_listening *listening)
{
    struct sockaddr_un address;
    char temporary[48];
    temporary_name(temporary);
    set_address(&address, NULL, directory, temporary);
    int error = bind_to(fd, &address);
    if (!error)
        error = begin_listening(fd, directory, temporary, access, listening);
    if (!error && renameat(directory, temporary, directory, base) != 0)
        error = -errno;
    if (error)
        unlinkat(directory, temporary, 0);
    return error;
}

static int new_socket(int directory, const char *path, const char *base, int type,
                      const struct fl_socket_access *access, struct fl_listening *ret_listening)
{
    struct fl_listening listening;
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    bool fits = strlen(path) < ADDRESS_BYTES || strlen(base) < SHORT_NAME;
    int error = fits ? bind_in_place(fd, directory, path, base, access, &listening)
                     : bind_and_rename(fd, directory, base, access, &listening);
    if (error)
        close(fd);
    else
        *ret_listening = listening;
    return error;
}

// In the directory, which is locked. A dead one is kept until the new one is there: its inode's
// number is what both are known by.
static int listen_in(int directory, const char *path, const char *base, int type,
                     const struct fl_socket_access *access, struct fl_listening *ret_listening)
{
    char aside[48];
    int dead = check_place(path, type);
    if (dead < 0)
        return dead;
    temporary_name(aside);
    if (dead && renameat(directory, base, directory, aside) != 0 && errno != ENOENT)
        return -errno;
    int error = new_socket(directory, path, base, type, access, ret_listening);
    if (dead)
        unlinkat(directory, aside, 0);
    return error;
}

static void warn_of_length(const char *path)
{
    size_t length = strlen(path);
    if (length > FL_SOCKET_PATH_MAX)
        fl_log(FL_LOG_WARNING,
               "event=long_path socket=%s bytes=%zu reason=\"a client can connect to a path of %d "
               "bytes at most: shorten the name or the directory\"",
               path, length, FL_SOCKET_PATH_MAX);
}

int fl_socket_listen(const char *path, int type, const struct fl_socket_access *access,
                     struct fl_listening *ret_listening)
{
    const char *base = NULL;
    int directory = open_directory(path, &base);
    if (directory < 0)
        return directory == -EISDIR ? -EEXIST : directory;
    int error = lock_directory(directory);
    if (!error)
        error = listen_in(directory, path, base, type, access, ret_listening);
    if (!error)
        warn_of_length(path);
    close(directory);
    return error;
}

int fl_socket_identify(int fd, struct fl_listening *ret_listening)
{
    struct stat status;
    int place = ioctl(fd, SIOCUNIXFILE);
    if (place < 0)
        return -errno;
    int error = fstat(place, &status) != 0 ? -errno : 0;
    close(place);
    if (!error)
        *ret_listening =
            (struct fl_listening){.fd = fd, .dev = status.st_dev, .ino = status.st_ino};
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
