// SPDX-License-Identifier: Apache-2.0
//
// FUSE mounts as the kernel lists them, and the end of their connections. Any thread; nothing here
// asks the server of a mount, which may be dead or hang.
#ifndef FAULTLINE_HOST_FUSE_MOUNT_H
#define FAULTLINE_HOST_FUSE_MOUNT_H

#include <limits.h>
#include <stdbool.h>

// The type of our mounts, in /proc/mounts.
#define FL_FUSE_TYPE "fuse.faultline"

struct fl_fuse_mount {
    char path[PATH_MAX];
    unsigned connection; // its number below /sys/fs/fuse/connections
    bool whole;          // not a bind mount of one of its files
};

// Calls fn for each mount of ours that this process sees; stops at its first non-zero result and
// returns it. -errno if the mounts cannot be read.
int fl_fuse_mounts_each(int (*fn)(void *arg, const struct fl_fuse_mount *mount), void *arg);
// The topmost mount of ours at the path. -ENOENT: there is none.
int fl_fuse_mount_find(const char *path, struct fl_fuse_mount *ret_mount);
// Whether the connection's is the topmost mount at the path, of all kinds of mounts.
bool fl_fuse_mount_is_on_top(const char *path, unsigned connection);

// Ends the connection: who waits for a page of it gets SIGBUS, who maps one that is not cached
// will, and nothing serves it again. -ENOENT: it is gone, or fusectl is not mounted at
// /sys/fs/fuse/connections; -EACCES.
int fl_fuse_abort(unsigned connection);
// How many requests wait, to be read or to be answered. -errno as above.
int fl_fuse_waiting(unsigned connection);

#endif
