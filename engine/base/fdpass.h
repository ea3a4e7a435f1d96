// SPDX-License-Identifier: Apache-2.0
//
// Receiving bytes with file descriptors, and knowing which process sent them. Any thread.
#ifndef FAULTLINE_BASE_FDPASS_H
#define FAULTLINE_BASE_FDPASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// As many as one message can carry (SCM_MAX_FD): a userfaultfd among them may have waiters,
// whatever its place, and one that is dropped unseen would leave them waiting for ever.
enum { FL_FDS_MAX = 253 };

struct fl_fds {
    unsigned count;
    bool lost;    // more came than we take; they were closed
    bool no_room; // our table had no room for all of them
    int fd[FL_FDS_MAX];
};

// Like recv() without waiting, with its flags: bytes, 0 at the end, or -errno. Descriptors that
// came along are added to fds, close-on-exec.
ssize_t fl_recv_fds(int socket, void *buf, size_t size, int flags, struct fl_fds *fds);
// What a client that maps a template is told first: a line of JSON, with the descriptor; or why
// not. 0, or -errno; never waits.
int fl_send_greeting(int socket, const char *image, uint64_t bytes, int fd);
int fl_send_refusal(int socket, const char *reason);
void fl_fds_close(struct fl_fds *fds);

// The process at the other end when it connected: its pid in our namespace (0 if it has none) and a
// pidfd
// (-1 if it cannot be had).
void fl_peer_identify(int socket, int64_t *ret_pid, int *ret_pidfd);

#endif
