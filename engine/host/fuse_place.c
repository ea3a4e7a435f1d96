// SPDX-License-Identifier: Apache-2.0
#include "engine/host/fuse_place.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/capability.h>

#include "engine/host/fuse_init.h"
#include "engine/host/fuse_mount.h"

enum { OPTIONS = 128, ANSWER_MS = 3000 };

bool fl_fuse_may_mount(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
    return syscall(SYS_capget, &header, data) == 0 &&
           (data[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective & CAP_TO_MASK(CAP_SYS_ADMIN)) != 0;
}

static int fail(char *reason, const char *path, const char *what, int error)
{
    snprintf(reason, FL_FUSE_REASON, "%s %s: %s", what, path, strerror(-error));
    return error;
}

// --- what is there ---

// In a new process, which may wait for a server that hangs: it must hold nothing of ours.
static void ask(const char *path, void (*child)(void))
{
    struct statx status;
    if (child)
        child();
    close_range(0, ~0U, 0);
    int result = statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_MODE, &status);
    _exit(result != 0 && errno == ENOTCONN ? 0 : 1);
}

// Without a server the kernel answers at once; what it remembers does not count. Where there is one
// it may be stopped, and must not stop us: no answer in time is that of a server.
static bool nothing_serves(const char *path, void (*child)(void))
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0)
        ask(path, child);
    struct pollfd ended = {.fd = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0),
                           .events = POLLIN};
    if (ended.fd < 0 || poll(&ended, 1, ANSWER_MS) != 1) {
        if (pid > 0)
            kill(pid, SIGKILL); // it is collected as a command is
    } else if (waitpid(pid, &status, 0) != pid) {
        status = -1;
    }
    if (ended.fd >= 0)
        close(ended.fd);
    return status == 0;
}

unsigned fl_fuse_place_clear(const char *path, void (*child)(void))
{
    struct fl_fuse_mount mount;
    unsigned count = 0;
    while (fl_fuse_mount_find(path, &mount) == 0 && nothing_serves(path, child)) {
        if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) != 0)
            break;
        count++;
    }
    return count;
}

static int prepare(const char *path, char *reason)
{
    struct fl_fuse_mount mount;
    struct stat status;
    if (fl_fuse_mount_find(path, &mount) == 0)
        return fail(reason, path, "another server has its files at", -EBUSY);
    if (mkdir(path, 0755) != 0 && errno != EEXIST)
        return fail(reason, path, "cannot make", -errno);
    if (lstat(path, &status) != 0)
        return fail(reason, path, "cannot use", -errno);
    if (S_ISLNK(status.st_mode)) { // the kernel lists the mount by another path
        snprintf(reason, FL_FUSE_REASON,
                 "cannot use %s: it is a symbolic link: name the directory itself", path);
        return -ELOOP;
    }
    return S_ISDIR(status.st_mode) ? 0 : fail(reason, path, "cannot use", -ENOTDIR);
}

// --- the mount ---

// allow_other: VMMs have users of their own; the kernel then looks at the modes of files
// (default_permissions).
static int mount_device(const char *path, int device, uid_t uid, gid_t gid)
{
    char options[OPTIONS];
    snprintf(options, sizeof(options),
             "fd=%d,rootmode=40000,user_id=%u,group_id=%u,allow_other,default_permissions", device,
             (unsigned)uid, (unsigned)gid);
    return mount("faultline", path, FL_FUSE_TYPE, MS_RDONLY | MS_NOSUID | MS_NODEV, options) == 0
               ? 0
               : -errno;
}

// The kernel's number of what was mounted just now; 0 if it does not tell.
static unsigned connection_at(const char *path)
{
    struct fl_fuse_mount mount;
    return fl_fuse_mount_find(path, &mount) == 0 ? mount.connection : 0;
}

int fl_fuse_place_make(const char *path, uid_t uid, gid_t gid, void (*child)(void),
                       struct fl_fuse_place *ret_place, char reason[FL_FUSE_REASON])
{
    fl_fuse_place_clear(path, child);
    int error = prepare(path, reason);
    if (error)
        return error;
    int device = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (device < 0)
        return fail(reason, "/dev/fuse", "cannot open", -errno);
    error = mount_device(path, device, uid, gid);
    if (error) {
        close(device);
        return fail(reason, path, "cannot mount", error);
    }
    error = fl_fuse_begin(device);
    if (error) {
        close(device);
        umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
        return fail(reason, path, "the kernel's FUSE is too old to mount", error);
    }
    *ret_place = (struct fl_fuse_place){device, connection_at(path)};
    return 0;
}

int fl_fuse_place_remove(const char *path, unsigned connection)
{
    if (!fl_fuse_mount_is_on_top(path, connection))
        return 0;
    return umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 ? 0 : -errno;
}

int fl_fuse_place_path(const char *files, char path[PATH_MAX])
{
    char parent[PATH_MAX];
    char *last = strdup(files);
    char *base = strdup(files);
    int length = -1;
    if (last && base && realpath(dirname(base), parent))
        length = snprintf(path, PATH_MAX, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent,
                          basename(last));
    free(last);
    free(base);
    return length < 0 ? -errno : length >= PATH_MAX ? -ENAMETOOLONG : 0;
}
