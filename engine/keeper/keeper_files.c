// SPDX-License-Identifier: Apache-2.0
//
// The mount of images as files. The keeper makes it if it may, or has the mounter make it
// (fuse_mounter.h), and holds the descriptor of /dev/fuse as a record: engines come and go, and the
// connection stays. When no process has the descriptor any more the kernel aborts the connection by
// itself.
#include "engine/keeper/keeper_internal.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/host/fuse_mount.h"
#include "engine/host/fuse_mounter.h"
#include "engine/host/fuse_place.h"

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

static void say_cleared(const char *path, unsigned count)
{
    if (count > 0)
        fl_log(FL_LOG_INFO,
               "event=files_cleared path=%s reason=\"nothing served what was mounted "
               "there\"",
               path);
}

// What a keeper has left mounted that was killed together with its engine.
static void clear_path(const char *path)
{
    if (fl_fuse_may_mount())
        say_cleared(path, fl_fuse_place_clear(path, fl_child_leave_keeper));
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

static int make_place(const char *path, struct fl_fuse_place *ret_place, char *reason)
{
    if (fl_fuse_may_mount())
        return fl_fuse_place_make(path, geteuid(), getegid(), fl_child_leave_keeper, ret_place,
                                  reason);
    int error = fl_fuse_mounter_make(path, ret_place, reason);
    if (error == -ENOENT || error == -ECONNREFUSED)
        snprintf(reason, FL_FUSE_REASON,
                 "cannot mount %s: it may not (CAP_SYS_ADMIN), and there is no mounter at %s: "
                 "systemctl enable --now faultline-files.socket (docs/files.md)",
                 path, FL_FUSE_MOUNTER_SOCKET);
    return error;
}

static int mount_files(struct fl_keeper *keeper, const char *path)
{
    char reason[FL_FUSE_REASON];
    struct fl_fuse_place place;
    clear_path(path);
    int error = make_place(path, &place, reason);
    if (error) {
        fprintf(stderr, "faultline serve: --files: %s\n", reason);
        return error;
    }
    error = put_device(keeper, place.device, place.connection);
    if (error)
        return fail(path, "cannot keep", error);
    fl_log(FL_LOG_INFO, "event=files_mounted path=%s", path);
    return 0;
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
    int error = fl_fuse_place_path(keeper->options->files, path);
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
static void unmount_own(const struct fl_keeper *keeper, const struct own_mount *own)
{
    char path[PATH_MAX];
    char reason[FL_FUSE_REASON];
    int error = 0;
    if (fl_fuse_may_mount()) {
        error = *own->path ? fl_fuse_place_remove(own->path, own->connection) : 0;
        snprintf(reason, sizeof(reason), "cannot unmount %s: %s", own->path, strerror(-error));
    } else if (keeper->options->files && fl_fuse_place_path(keeper->options->files, path) == 0) {
        error = fl_fuse_mounter_remove(path, own->connection, reason);
    }
    if (error)
        fl_log(FL_LOG_ERROR, "event=files_failed reason=\"%s\"", reason);
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
        unmount_own(keeper, &own);
    else if (keeper->options->files && fl_fuse_place_path(keeper->options->files, path) == 0)
        clear_path(path);
}
