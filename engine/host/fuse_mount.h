// SPDX-License-Identifier: Apache-2.0
//
// FUSE mounts as the kernel lists them, and the end of their connections. Any thread; nothing here
// asks the server of a mount, which may be dead or hang.
#ifndef FAULTLINE_HOST_FUSE_MOUNT_H
#define FAULTLINE_HOST_FUSE_MOUNT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

struct fl_proc_fd;

// The type of our mounts, in /proc/mounts.
#define FL_FUSE_TYPE "fuse.faultline"
// How the memfd begins in which a server of ours keeps what the kernel knows of its files
// (files_state.h), and its name in /proc.
#define FL_FUSE_STATE_MAGIC 0x656c69666c746c66ULL // "fltlfile"
#define FL_FUSE_STATE_NAME "faultline-files"
struct fl_fuse_state_head {
    uint64_t magic;
    uint32_t version;
    uint32_t connection; // 0: unknown
};

enum { FL_FUSE_TYPE_BYTES = 32 };

struct fl_fuse_mount {
    char path[PATH_MAX];
    char type[FL_FUSE_TYPE_BYTES];
    unsigned connection; // its number below /sys/fs/fuse/connections
    bool whole;          // not a bind mount of one of its files
};

// Calls fn for each mount of ours that this process sees; stops at its first non-zero result and
// returns it. -errno if the mounts cannot be read.
int fl_fuse_mounts_each(int (*fn)(void *arg, const struct fl_fuse_mount *mount), void *arg);
// The same for those of any server: fuse, fuseblk, fuse.KIND and virtiofs.
int fl_fuse_mounts_each_of_all(int (*fn)(void *arg, const struct fl_fuse_mount *mount), void *arg);
// The topmost mount of ours at the path. -ENOENT: there is none.
int fl_fuse_mount_find(const char *path, struct fl_fuse_mount *ret_mount);
// Whether the connection's is the topmost mount at the path, of all kinds of mounts.
bool fl_fuse_mount_is_on_top(const char *path, unsigned connection);

// Ends the connection: who waits for a page of it gets SIGBUS, who maps one that is not cached
// will, and nothing serves it again. -ENOENT: it is gone, or fusectl is not mounted at
// /sys/fs/fuse/connections; -EACCES.
int fl_fuse_abort(unsigned connection);
// The same in two steps: a descriptor, or -errno, and its use. It ends the connection that it was
// opened for and no other, whoever has the number by then; nothing if that one is gone.
int fl_fuse_abort_open(unsigned connection);
int fl_fuse_abort_opened(int fd);
// How many requests wait, to be read or to be answered. -errno as above.
int fl_fuse_waiting(unsigned connection);

// Calls fn with the number of each connection, as above. -ENOENT: fusectl is not mounted.
int fl_fuse_connections_each(int (*fn)(void *arg, int connection), void *arg);
// Mounts fusectl where it belongs, if it is not: that needs CAP_SYS_ADMIN. 0 or -errno.
int fl_fuse_control_mount(void);
// The connection that a descriptor of /dev/fuse (Linux 6.16 and later), or a server's state, is of;
// 0: it is neither, or that cannot be known.
unsigned fl_fuse_connection_of(const struct fl_proc_fd *fd);

#endif
