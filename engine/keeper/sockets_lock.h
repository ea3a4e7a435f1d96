// SPDX-License-Identifier: Apache-2.0
//
// One server a directory of sockets: a file there is locked (flock) as long as a process of the
// server lives, and says which server that is. Theory of operation:
//
// - The keeper opens the file, and every engine that it starts inherits the descriptor. The lock
//   belongs to the open file, so an engine that outlives its keeper still has it.
// - A server is known by its control socket: the directory of that (device and inode) and its name.
//   What has the lock and is known by the same is what this keeper takes over, or is just ending:
//   the lock is taken when that has gone, and meanwhile no other server can have it.
// - A file system that knows no locks, or a directory that cannot be written to, has none: two
//   servers there then leave each other's sockets alone, and say what they cannot reach.
// - The file goes with the server. One that was removed while it was waited for is not taken.
#ifndef FAULTLINE_KEEPER_SOCKETS_LOCK_H
#define FAULTLINE_KEEPER_SOCKETS_LOCK_H

#include <limits.h>
#include <stdbool.h>

struct fl_sockets_lock {
    int fd; // for the engines as well; -1: there is no lock
    bool held;
    bool lost; // another server has the file that is at the path by now, which was said
    char path[PATH_MAX];
    char server[PATH_MAX + 128]; // what the file says while this server has it
};

// Takes the lock of the directory, and waits a moment for a server that ends. 0 also if the lock is
// the same server's, or cannot be had at all. -EBUSY: another server's; ret_other is its control
// socket's path.
int fl_sockets_lock_take(struct fl_sockets_lock *lock, const char *directory, const char *control,
                         char ret_other[PATH_MAX]);
// Tries again if it is not held yet, or if the directory was made anew. The engines that run then
// have the old file, and those that start later the new one.
void fl_sockets_lock_again(struct fl_sockets_lock *lock);
// Closes it. `over`: no engine of this server goes on, so the file goes, too.
void fl_sockets_lock_close(struct fl_sockets_lock *lock, bool over);

#endif
