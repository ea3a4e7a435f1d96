// SPDX-License-Identifier: Apache-2.0
//
// Whether the files can still be found: an operator may unmount them, and what is open goes on as
// if nothing had happened. The kernel tells when any mount has come or gone. Control thread.
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/loop.h"
#include "engine/files/files_internal.h"
#include "engine/host/fuse_mount.h"

static int is_own(void *arg, const struct fl_fuse_mount *mount)
{
    const uint32_t *connection = arg;
    return mount->whole && mount->connection == *connection;
}

// That it cannot be seen is no news.
static void look(struct fl_files *files)
{
    uint32_t connection = files->state->connection;
    bool hidden = fl_fuse_mounts_each(is_own, &connection) == 0;
    if (atomic_load(&files->ended) || hidden == files->hidden)
        return;
    files->hidden = hidden;
    files->options.hidden(files->options.arg, hidden);
}

static void mounts_changed(struct fl_source *source, uint32_t events)
{
    (void)events;
    look(caa_container_of(source, struct fl_files, mounts));
}

void fl_files_watch_mounts(struct fl_files *files)
{
    if (files->state->connection == 0 || files->mounts.fd >= 0)
        return;
    files->mounts.fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    files->mounts.ready = mounts_changed;
    if (files->mounts.fd < 0)
        return;
    if (fl_loop_watch(files->options.loop, &files->mounts, EPOLLPRI) != 0) {
        close(files->mounts.fd);
        files->mounts.fd = -1;
        return;
    }
    look(files); // it may have gone before
}

void fl_files_unwatch_mounts(struct fl_files *files)
{
    if (files->mounts.fd < 0)
        return;
    fl_loop_unwatch(files->options.loop, &files->mounts);
    close(files->mounts.fd);
    files->mounts.fd = -1;
}
