// SPDX-License-Identifier: Apache-2.0
#include "engine/keeper/sockets_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/log.h"

#define NAME ".faultline.lock"
#define SERVER "server %" PRIu64 " %" PRIu64 " "
enum { TRIES = 50, PAUSE_MS = 20 }; // an engine that was killed is gone by then, as a rule

// "server DEV INO /path/of/control.sock", by whatever path its directory was named.
static void describe_server(const char *control, char *text, size_t size)
{
    char copy[PATH_MAX];
    char place[PATH_MAX];
    struct stat status = {0};
    snprintf(copy, sizeof(copy), "%s", control);
    const char *directory = dirname(copy);
    if (stat(directory, &status) != 0)
        status = (struct stat){0};
    const char *slash = strrchr(control, '/');
    snprintf(text, size, SERVER "%s/%s\n", (uint64_t)status.st_dev, (uint64_t)status.st_ino,
             realpath(directory, place) ? place : directory, slash ? slash + 1 : control);
}

static const char *control_of(const char *server)
{
    const char *path = strchr(server, '/');
    return path ? path : "";
}

// Its directory by number, as another mount namespace may know it by another path; its name.
static bool is_same(const char *server, const char *other)
{
    uint64_t number[2];
    uint64_t others[2];
    const char *name = strrchr(server, '/');
    const char *others_name = strrchr(other, '/');
    // NOLINTBEGIN(cert-err34-c): a number that is too long is no other server's
    return sscanf(server, SERVER, &number[0], &number[1]) == 2 &&
           sscanf(other, SERVER, &others[0], &others[1]) == 2 && number[0] == others[0] &&
           number[1] == others[1] && name && others_name && strcmp(name, others_name) == 0;
    // NOLINTEND(cert-err34-c)
}

// A file that another user's server has made may be locked by who can read it.
static int open_file(const char *path)
{
    int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    int fd = open(path, O_RDWR | O_CREAT | flags, 0644);
    if (fd < 0 && errno == EACCES)
        fd = open(path, O_RDONLY | flags);
    return fd < 0 ? -errno : fd;
}

static bool is_at_path(const struct fl_sockets_lock *lock)
{
    struct stat there;
    struct stat ours;
    return stat(lock->path, &there) == 0 && fstat(lock->fd, &ours) == 0 &&
           there.st_dev == ours.st_dev && there.st_ino == ours.st_ino;
}

static void write_server(const struct fl_sockets_lock *lock)
{
    size_t length = strlen(lock->server);
    if (ftruncate(lock->fd, 0) != 0 || pwrite(lock->fd, lock->server, length, 0) != (ssize_t)length)
        fl_log(FL_LOG_WARNING, "event=sockets_lock reason=\"its file cannot be written\"");
}

// 0; -EWOULDBLOCK: another process has it; -ESTALE: the file has been removed; other errors: there
// are no locks.
static int try_lock(struct fl_sockets_lock *lock)
{
    if (flock(lock->fd, LOCK_EX | LOCK_NB) != 0)
        return -errno;
    if (!is_at_path(lock)) {
        flock(lock->fd, LOCK_UN);
        return -ESTALE;
    }
    lock->held = true;
    write_server(lock);
    return 0;
}

static int try_open(struct fl_sockets_lock *lock)
{
    int error = -ESTALE;
    for (unsigned i = 0; i < TRIES && error == -ESTALE; i++) {
        if (lock->fd >= 0)
            close(lock->fd);
        lock->fd = open_file(lock->path);
        error = lock->fd < 0 ? lock->fd : try_lock(lock);
    }
    return error;
}

// Which server the file names; "" while that is being written.
static void read_server(const struct fl_sockets_lock *lock, char *text, size_t size)
{
    ssize_t got = pread(lock->fd, text, size - 1, 0);
    text[got > 0 ? got : 0] = '\0';
    char *end = strchr(text, '\n');
    if (!end)
        text[0] = '\0';
}

int fl_sockets_lock_take(struct fl_sockets_lock *lock, const char *directory, const char *control,
                         char ret_other[PATH_MAX])
{
    char other[sizeof(lock->server)] = "";
    *lock = (struct fl_sockets_lock){.fd = -1};
    describe_server(control, lock->server, sizeof(lock->server));
    if (snprintf(lock->path, sizeof(lock->path), "%s/" NAME, directory) >= (int)sizeof(lock->path))
        return 0;
    int error = try_open(lock);
    for (unsigned i = 0; i < TRIES && error == -EWOULDBLOCK; i++) {
        read_server(lock, other, sizeof(other));
        if (is_same(lock->server, other))
            return 0;
        poll(NULL, 0, PAUSE_MS);
        error = try_lock(lock);
        if (error == -ESTALE)
            error = try_open(lock);
    }
    if (error == -EWOULDBLOCK) {
        other[strcspn(other, "\n")] = '\0';
        snprintf(ret_other, PATH_MAX, "%.*s", PATH_MAX - 1, control_of(other));
        return -EBUSY;
    }
    if (error) {
        fl_log(FL_LOG_WARNING, "event=sockets_lock reason=\"there is none: %s\"", strerror(-error));
        fl_sockets_lock_close(lock, false);
    }
    return 0;
}

// The file that was locked is elsewhere by now, or gone. It is let go when the new one is locked.
static void take_anew(struct fl_sockets_lock *lock)
{
    int old = lock->fd;
    lock->fd = -1;
    lock->held = false;
    int error = try_open(lock);
    if (lock->held) {
        close(old);
        lock->lost = false;
        return;
    }
    if (lock->fd >= 0)
        close(lock->fd);
    lock->fd = old;
    lock->held = true;
    if (error == -EWOULDBLOCK && !lock->lost)
        fl_log(FL_LOG_WARNING,
               "event=sockets_lock reason=\"the directory of sockets was made anew, and another "
               "server has it\"");
    lock->lost |= error == -EWOULDBLOCK;
}

void fl_sockets_lock_again(struct fl_sockets_lock *lock)
{
    if (lock->fd < 0)
        return;
    if (lock->held && !is_at_path(lock))
        take_anew(lock);
    else if (!lock->held && try_lock(lock) == -ESTALE)
        try_open(lock);
}

void fl_sockets_lock_close(struct fl_sockets_lock *lock, bool over)
{
    if (lock->fd < 0)
        return;
    if (over)
        fl_sockets_lock_again(lock);
    if (over && lock->held && is_at_path(lock)) // or it would be another server's
        unlink(lock->path);
    if (lock->fd >= 0)
        close(lock->fd);
    lock->fd = -1;
    lock->held = false;
}
