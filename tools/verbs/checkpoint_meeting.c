// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The directory is the command's own (mode 711): what runs in the jail can
// open what is in it, and can replace none of it. The files are of the jail's user, mode 600. A
// FIFO may not be in a directory that is sticky and that others can write to (fs.protected_fifos).
//
// Firecracker may have another root directory than the command, by chroot or by a mount namespace.
// A directory that the user names is found in there by its inode: the longest end of its path that
// leads to it from the process's root. Without a name, one is looked for from that root. Paths in
// the jail are resolved within it, as a link there may point anywhere.
#include "tools/verbs/checkpoint_meeting.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { FILE_MODE = 0600, DIRECTORY_MODE = 0711 };

static int open_in(int root, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    long fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
    return fd < 0 ? -errno : (int)fd;
}

static bool is_same(int one, int other)
{
    struct stat a;
    struct stat b;
    return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

static bool leads_to(int root, const char *path, int directory)
{
    int there = open_in(root, path, O_PATH | O_DIRECTORY);
    bool same = there >= 0 && is_same(there, directory);
    if (there >= 0)
        close(there);
    return same;
}

// Finds the directory in the process's root.
static int find_seen(int root, const char *directory, struct meeting *meeting,
                     struct fl_error *ret_error)
{
    char whole[PATH_MAX];
    if (!realpath(directory, whole))
        return fl_fail(ret_error, -errno, "the directory %s cannot be used", directory);
    for (const char *end = whole; end; end = strchr(end + 1, '/')) {
        if (leads_to(root, end, meeting->base)) {
            snprintf(meeting->base_seen, sizeof(meeting->base_seen), "%s", end);
            return 0;
        }
    }
    if (leads_to(root, "/", meeting->base)) {
        snprintf(meeting->base_seen, sizeof(meeting->base_seen), "/");
        return 0;
    }
    return fl_fail_plain(ret_error, -EXDEV,
                         "the directory %s is not below the root directory of the VM's process, "
                         "which is in a jail: --fifo-dir must name one there",
                         directory);
}

static int use_given(int root, const char *directory, struct meeting *meeting,
                     struct fl_error *ret_error)
{
    meeting->base = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (meeting->base < 0)
        return fl_fail(ret_error, -errno, "the directory %s cannot be used", directory);
    return find_seen(root, directory, meeting, ret_error);
}

// Firecracker has the state on the disk before the VM may go on: on a disk that is busy that takes
// longer than all the rest of the pause.
static bool is_in_memory(int directory)
{
    struct statfs status;
    return fstatfs(directory, &status) == 0 && status.f_type == TMPFS_MAGIC;
}

static bool use_usual(int root, const char *path, bool in_memory, struct meeting *meeting)
{
    int fd = open_in(root, path, O_RDONLY | O_DIRECTORY);
    if (fd >= 0 && faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) == 0 &&
        (!in_memory || is_in_memory(fd))) {
        meeting->base = fd;
        snprintf(meeting->base_seen, sizeof(meeting->base_seen), "%s", path);
        return true;
    }
    if (fd >= 0)
        close(fd);
    return false;
}

static int choose(int root, struct meeting *meeting, struct fl_error *ret_error)
{
    static const char *const usual[] = {"/run", "/dev/shm", "/tmp", "/var/tmp", "/"};
    for (unsigned i = 0; i < 2 * sizeof(usual) / sizeof(usual[0]); i++) {
        bool in_memory = i < sizeof(usual) / sizeof(usual[0]);
        if (use_usual(root, usual[i % (sizeof(usual) / sizeof(usual[0]))], in_memory, meeting))
            return 0;
    }
    return fl_fail_plain(ret_error, -EACCES,
                         "this user can write to none of /run, /tmp and / of the VM's process: "
                         "--fifo-dir must name a directory there");
}

static int find_base(pid_t pid, const char *directory, struct meeting *meeting,
                     struct fl_error *ret_error)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
    int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fl_fail(ret_error, -errno,
                       "the root directory of the VM's process %d cannot be opened; run this as "
                       "root, or as the process's user",
                       (int)pid);
    int error = directory ? use_given(root, directory, meeting, ret_error)
                          : choose(root, meeting, ret_error);
    close(root);
    return error;
}

static int name_all(struct meeting *meeting, struct fl_error *ret_error)
{
    uint64_t number;
    const char *base = meeting->base_seen[1] ? meeting->base_seen : "";
    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        return fl_fail(ret_error, -EIO, "a name for a directory cannot be made");
    snprintf(meeting->name, sizeof(meeting->name), "faultline-checkpoint-%016llx",
             (unsigned long long)number);
    int a = snprintf(meeting->vmstate_seen, PATH_MAX, "%s/%s/" GUARD_VMSTATE, base, meeting->name);
    int b = snprintf(meeting->fifo_seen, PATH_MAX, "%s/%s/" GUARD_FIFO, base, meeting->name);
    if (a >= PATH_MAX || b >= PATH_MAX)
        return fl_fail_plain(ret_error, -ENAMETOOLONG, "the path %s is too long",
                             meeting->base_seen);
    return 0;
}

static int give_to(int dir, const char *name, const struct meeting_peer *peer)
{
    if (peer->uid == geteuid() && peer->gid == getegid())
        return 0;
    return fchownat(dir, name, peer->uid, peer->gid, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int make_files(const struct meeting_peer *peer, struct meeting *meeting)
{
    struct stat status;
    if (mkdirat(meeting->base, meeting->name, 0700) < 0)
        return -errno;
    meeting->dir =
        openat(meeting->base, meeting->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (meeting->dir < 0 || fstat(meeting->dir, &status) < 0)
        return -errno;
    if (status.st_uid != geteuid())
        return -ESTALE; // another one was put into its place
    int fd = openat(meeting->dir, GUARD_VMSTATE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
    if (fd < 0 || mkfifoat(meeting->dir, GUARD_FIFO, FILE_MODE) < 0) {
        int error = -errno;
        if (fd >= 0)
            close(fd);
        return error;
    }
    close(fd);
    meeting->vmstate = openat(meeting->dir, GUARD_VMSTATE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int error = meeting->vmstate < 0 ? -errno : 0;
    if (!error)
        error = give_to(meeting->dir, GUARD_VMSTATE, peer);
    if (!error)
        error = give_to(meeting->dir, GUARD_FIFO, peer);
    if (!error && fchmod(meeting->dir, DIRECTORY_MODE) < 0)
        error = -errno;
    return error;
}

static int watch_vmstate(struct meeting *meeting)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", meeting->vmstate);
    meeting->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (meeting->inotify < 0 || inotify_add_watch(meeting->inotify, path, IN_CLOSE_WRITE) < 0)
        return -errno;
    return 0;
}

void meeting_init(struct meeting *meeting)
{
    *meeting = (struct meeting){.base = -1, .dir = -1, .vmstate = -1, .inotify = -1, .fifo = -1};
}

int meeting_make(const struct meeting_peer *peer, const char *directory,
                 struct meeting *ret_meeting, struct fl_error *ret_error)
{
    meeting_init(ret_meeting);
    int error = find_base(peer->pid, directory, ret_meeting, ret_error);
    if (!error)
        error = name_all(ret_meeting, ret_error);
    if (error)
        return error;
    error = guard_start(peer->api, ret_meeting->base, ret_meeting->name, &ret_meeting->guard);
    if (error)
        return fl_fail(ret_error, error, "a process that guards the checkpoint cannot be started");
    error = make_files(peer, ret_meeting);
    if (error == -EPERM)
        return fl_fail_plain(ret_error, error,
                             "files in %s of the VM's process cannot be given to its user %u: run "
                             "this as root, or as that user",
                             ret_meeting->base_seen, (unsigned)peer->uid);
    if (error)
        return fl_fail(ret_error, error,
                       "the directory for the FIFO cannot be made in %s of the VM's process",
                       ret_meeting->base_seen);
    error = watch_vmstate(ret_meeting);
    if (error)
        return fl_fail(ret_error, error, "the file for the VM's state cannot be watched");
    return 0;
}

bool meeting_is_written(struct meeting *meeting)
{
    union {
        struct inotify_event event;
        char bytes[sizeof(struct inotify_event) + NAME_MAX + 1];
    } buffer;
    bool written = false;
    while (read(meeting->inotify, &buffer, sizeof(buffer)) > 0)
        written = true;
    return written;
}

int meeting_open(struct meeting *meeting)
{
    meeting->fifo =
        openat(meeting->dir, GUARD_FIFO, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    return meeting->fifo < 0 ? -errno : 0;
}

void meeting_release(struct meeting *meeting)
{
    if (meeting->fifo < 0 && meeting->dir >= 0)
        meeting->fifo = guard_open_fifo(meeting->dir);
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_all(struct meeting *meeting)
{
    close_one(&meeting->fifo);
    close_one(&meeting->inotify);
    close_one(&meeting->vmstate);
    close_one(&meeting->dir);
    close_one(&meeting->base);
}

void meeting_leave(struct meeting *meeting)
{
    close_all(meeting);
    guard_leave(&meeting->guard);
}

void meeting_end(struct meeting *meeting)
{
    meeting_release(meeting);
    if (meeting->dir >= 0)
        guard_remove(meeting->base, meeting->name, meeting->dir);
    else if (meeting->base >= 0 && meeting->guard.orders)
        unlinkat(meeting->base, meeting->name, AT_REMOVEDIR);
    close_all(meeting);
    guard_dismiss(&meeting->guard);
}
