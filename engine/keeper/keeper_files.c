// SPDX-License-Identifier: Apache-2.0
//
// The mount of images as files. The keeper makes it, as only it may mount, and holds the descriptor
// of /dev/fuse as a record: engines come and go, and the connection stays. When no process has the
// descriptor any more the kernel aborts the connection by itself.
#include "engine/keeper/keeper_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
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

#include "engine/base/log.h"
#include "engine/host/fuse_mount.h"

enum { OPTIONS = 128, ANSWER_MS = 3000 };

static int fail(const char *path, const char *what, int error)
{
    fprintf(stderr, "faultline serve: --files: %s %s: %s\n", what, path, strerror(-error));
    return error;
}

// The connection of a record that is gone: it was unmounted, or aborted.
static bool is_dead(const struct fl_record *record)
{
    struct pollfd device = {.fd = record->fd[FL_FILES_DEVICE], .events = POLLIN};
    return device.fd < 0 ||
           (poll(&device, 1, 0) > 0 && device.revents & (POLLERR | POLLHUP | POLLNVAL));
}

// In a new process, which may wait for a server that hangs: it must hold nothing of the keeper's.
static void ask(const char *path)
{
    struct statx status;
    fl_child_leave_keeper();
    close_range(0, ~0U, 0);
    int result = statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_MODE, &status);
    _exit(result != 0 && errno == ENOTCONN ? 0 : 1);
}

// Without a server the kernel answers at once; what it remembers does not count. Where there is one
// it may be stopped, and must not stop us: no answer in time is that of a server.
static bool nothing_serves(const char *path)
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0)
        ask(path);
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

// What a keeper has left mounted that was killed together with its engine.
static void clear_path(const char *path)
{
    struct fl_fuse_mount mount;
    while (fl_fuse_mount_find(path, &mount) == 0 && nothing_serves(path)) {
        if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) != 0)
            return;
        fl_log(FL_LOG_INFO,
               "event=files_cleared path=%s reason=\"nothing served what was mounted "
               "there\"",
               path);
    }
}

static int prepare_path(const char *path)
{
    struct fl_fuse_mount mount;
    struct stat status;
    clear_path(path);
    if (fl_fuse_mount_find(path, &mount) == 0)
        return fail(path, "another server has its files at", -EBUSY);
    if (mkdir(path, 0755) != 0 && errno != EEXIST)
        return fail(path, "cannot make", -errno);
    if (stat(path, &status) != 0)
        return fail(path, "cannot use", -errno);
    return S_ISDIR(status.st_mode) ? 0 : fail(path, "cannot use", -ENOTDIR);
}

// allow_other: VMMs have users of their own; the kernel then looks at the modes of files
// (default_permissions).
static int mount_device(const char *path, int device)
{
    char options[OPTIONS];
    snprintf(options, sizeof(options),
             "fd=%d,rootmode=40000,user_id=%u,group_id=%u,allow_other,default_permissions", device,
             (unsigned)geteuid(), (unsigned)getegid());
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

static int put_device(struct fl_keeper *keeper, int device, unsigned connection)
{
    int fds[FL_CHANNEL_FDS];
    struct fl_message put = {.kind = FL_RECORD_FILES,
                             .id = FL_FILES_RECORD,
                             .value = connection,
                             .slots = FL_FILES_SLOTS,
                             .first = 0,
                             .mask = 1U << FL_FILES_DEVICE};
    for (unsigned i = 0; i < FL_CHANNEL_FDS; i++)
        fds[i] = -1;
    fds[FL_FILES_DEVICE] = device;
    return fl_records_put(&keeper->records, &put, fds);
}

static int mount_files(struct fl_keeper *keeper, const char *path)
{
    int error = prepare_path(path);
    if (error)
        return error;
    int device = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (device < 0)
        return fail("/dev/fuse", "cannot open", -errno);
    error = mount_device(path, device);
    if (error) {
        close(device);
        return fail(path, "cannot mount", error);
    }
    error = put_device(keeper, device, connection_at(path));
    if (error)
        return fail(path, "cannot keep", error);
    fl_log(FL_LOG_INFO, "event=files_mounted path=%s", path);
    return 0;
}

// As the kernel lists it. The last part is not looked at: a dead mount would not let us.
static int absolute(const char *files, char path[PATH_MAX])
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

int fl_keeper_mount_files(struct fl_keeper *keeper)
{
    char path[PATH_MAX];
    const struct fl_record *record =
        fl_records_find(&keeper->records, FL_RECORD_FILES, FL_FILES_RECORD);
    if (record && is_dead(record) && !keeper->serving) {
        fl_records_drop(&keeper->records, FL_RECORD_FILES, FL_FILES_RECORD);
        record = NULL;
    }
    if (record || !keeper->options->files)
        return 0;
    if (keeper->serving) { // it was started without, and takes no record any more
        fl_log(FL_LOG_WARNING,
               "event=files_not_mounted path=%s reason=\"the engine that serves goes "
               "on without files: restart the server\"",
               keeper->options->files);
        return 0;
    }
    int error = absolute(keeper->options->files, path);
    error = error ? fail(keeper->options->files, "cannot use", error) : mount_files(keeper, path);
    return keeper->records.vms > 0 ? 0 : error; // they are served all the same
}

// --- the end ---

struct own_mount {
    unsigned connection;
    char path[PATH_MAX]; // "": it is not mounted any more
};

// The first is the one that was mounted; others are bind mounts.
static int find_own(void *arg, const struct fl_fuse_mount *mount)
{
    struct own_mount *own = arg;
    if (mount->connection != own->connection || !mount->whole)
        return 0;
    snprintf(own->path, sizeof(own->path), "%s", mount->path);
    return 1;
}

static void abort_own(const struct own_mount *own)
{
    int waiting = fl_fuse_waiting(own->connection);
    if (waiting > 0)
        fl_log(FL_LOG_ERROR,
               "event=files_aborted path=%s waiting=%d reason=\"nothing serves them any more\"",
               own->path, waiting);
    fl_fuse_abort(own->connection); // else the kernel does as the last descriptor is closed
}

// Another server's, or whatever else was mounted over it, is not ours to unmount.
static void unmount_own(const struct own_mount *own)
{
    if (*own->path && fl_fuse_mount_is_on_top(own->path, own->connection) &&
        umount2(own->path, MNT_DETACH | UMOUNT_NOFOLLOW) != 0)
        fl_log(FL_LOG_ERROR, "event=files_failed reason=\"cannot unmount %s: %s\"", own->path,
               strerror(errno));
}

// The number is ours while the connection lives; the kernel may give that of a dead one to another.
// Where it is not known the path goes if nothing serves it when our descriptor is closed.
void fl_keeper_unmount_files(struct fl_keeper *keeper)
{
    char path[PATH_MAX];
    const struct fl_record *record =
        fl_records_find(&keeper->records, FL_RECORD_FILES, FL_FILES_RECORD);
    if (!record)
        return;
    struct own_mount own = {.connection = is_dead(record) ? 0 : (unsigned)record->value};
    if (own.connection != 0) {
        fl_fuse_mounts_each(find_own, &own);
        abort_own(&own);
    }
    fl_records_drop(&keeper->records, FL_RECORD_FILES, FL_FILES_RECORD);
    if (own.connection != 0)
        unmount_own(&own);
    else if (keeper->options->files && absolute(keeper->options->files, path) == 0)
        clear_path(path);
}
