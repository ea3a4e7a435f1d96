// SPDX-License-Identifier: Apache-2.0
//
// Where the command and a Firecracker meet: a private directory with the file into which
// Firecracker writes the state of the devices, and a FIFO that it takes for the memory file. It
// waits in open() of the FIFO, with all devices still, until the command opens it as well.
#ifndef FAULTLINE_TOOLS_VERBS_CHECKPOINT_MEETING_H
#define FAULTLINE_TOOLS_VERBS_CHECKPOINT_MEETING_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "snapshot/error.h"
#include "tools/verbs/checkpoint_guard.h"

struct meeting {
    int base;                 // the directory that has the private directory
    int dir;                  // the private directory
    int vmstate;              // the file, to be read
    int inotify;              // sees Firecracker close it
    int fifo;                 // opened for reading
    char name[64];            // of the private directory
    char base_seen[PATH_MAX]; // base, as Firecracker sees it
    char vmstate_seen[PATH_MAX];
    char fifo_seen[PATH_MAX];
    struct guard guard;
};

// The process that Firecracker is.
struct meeting_peer {
    const char *api;
    pid_t pid;
    uid_t uid;
    gid_t gid;
};

// Nothing of it is there: meeting_end() is a no-op.
void meeting_init(struct meeting *meeting);
// Makes all of it below `directory`, or below a directory of the process's own root that can be
// written to if it is NULL. Begins the guard. Returns 0, or -errno and a sentence; then nothing is
// left. In any case meeting_end() may be called.
int meeting_make(const struct meeting_peer *peer, const char *directory,
                 struct meeting *ret_meeting, struct fl_error *ret_error);
// True once Firecracker has closed the file with the state. Never waits; meeting->inotify can be
// polled.
bool meeting_is_written(struct meeting *meeting);
// Opens the FIFO. Returns 0 or -errno.
int meeting_open(struct meeting *meeting);
// Opens the FIFO, if it was not opened, so that Firecracker does not wait in it.
void meeting_release(struct meeting *meeting);
// Removes everything, and dismisses the guard.
void meeting_end(struct meeting *meeting);
// Leaves all to the guard.
void meeting_leave(struct meeting *meeting);

#endif
