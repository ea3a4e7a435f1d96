// SPDX-License-Identifier: Apache-2.0
//
// Listening at a path of any length. Its owner and mode are right from the first moment in which a
// client can connect (before that, for a moment, the mode is 0). A socket that a dead process left
// is replaced, a live one never (another server may be making it just now: the directory is locked
// with flock()). Any thread; waits for the file system, and for the lock for 20 ms at most. Source:
// unix(7).
#ifndef FAULTLINE_BASE_UNIX_SOCKET_H
#define FAULTLINE_BASE_UNIX_SOCKET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

// The longest path that fits an address, without its NUL: other programs connect to no longer one.
#define FL_SOCKET_PATH_MAX 107

// What follows the name of an image in the name of its socket.
#define FL_SOCKET_SUFFIX ".sock"

struct fl_socket_access {
    mode_t mode;
    uid_t uid; // (uid_t)-1: leave it
    gid_t gid;
};

struct fl_listening {
    int fd; // non-blocking, close-on-exec
    dev_t dev;
    ino_t ino;
};

// type: SOCK_STREAM or SOCK_SEQPACKET. -EADDRINUSE: a process listens there. -EEXIST: there is
// something that is no socket. -EBUSY: another process holds the directory's lock.
int fl_socket_listen(const char *path, int type, const struct fl_socket_access *access,
                     struct fl_listening *ret_listening);
// The file that a socket was bound to, wherever that is now. -EPERM without CAP_NET_ADMIN.
int fl_socket_identify(int fd, struct fl_listening *ret_listening);
// True if the path still leads to it.
bool fl_socket_is_at(const char *path, const struct fl_listening *listening);
// Gives what is at the path the access, if it is still ours. -ESTALE: it is not. While the owner
// changes, what both modes allow is in force.
int fl_socket_set_access(const char *path, const struct fl_listening *listening,
                         const struct fl_socket_access *access);
// Removes the path if it is still ours: no client can connect any more.
void fl_socket_unlink(const char *path, const struct fl_listening *listening);
// The same, and closes it.
void fl_socket_close(const char *path, struct fl_listening *listening);

// Connects to a path of any length. The descriptor, or -errno: -ECONNREFUSED if no process listens
// there any more, -ENOTSOCK if something else than a socket is there.
int fl_socket_connect(const char *path, int type);
// Why that failed, as the end of a sentence: what is really at the path. The text is static.
const char *fl_socket_why(const char *path, int error);

#endif
