// SPDX-License-Identifier: Apache-2.0
//
// What a checkpoint has left that was killed with all that guards it: the directory in which it met
// its Firecracker (tools/verbs/checkpoint_meeting.h), and perhaps a Firecracker that waits in
// open() of the FIFO there. A directory that a process holds open is one of a checkpoint that goes
// on, or is being cleared away.
#ifndef FAULTLINE_DOCTOR_DOCTOR_LEFT_H
#define FAULTLINE_DOCTOR_DOCTOR_LEFT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct fl_diagnosis;

enum { FL_MEETING_NAME = 40 };

// Those that a process holds open, by their names, which are unique.
struct fl_held_meetings {
    size_t count;
    char (*name)[FL_MEETING_NAME];
};

// False: it can be no path of a checkpoint's, and must not get to a terminal or a shell. What a
// process says of itself may be anything.
bool fl_doctor_path_is_plain(const char *path);
// Notes what this descriptor is. 0 or -ENOMEM.
int fl_doctor_note_held(struct fl_held_meetings *held, const char *target);
// Notes a task that sleeps in open() of such a FIFO; wchan is where it sleeps. 0 or -ENOMEM.
int fl_doctor_note_waiter(struct fl_diagnosis *found, pid_t pid, const char *task_path,
                          const char *wchan);
// Notes directories in the usual places of the root directory of a process, which may be another
// one than our own; 0: our own. 0 or -ENOMEM.
int fl_doctor_note_directories(struct fl_diagnosis *found, pid_t pid);
// Leaves out those that are held, and frees `held`.
void fl_doctor_leave_out_held(struct fl_diagnosis *found, struct fl_held_meetings *held);
// Leaves out what an earlier look has not seen: it may have begun, or ended, in the middle of one.
void fl_doctor_leave_out_new(const struct fl_diagnosis *first, struct fl_diagnosis *found);

#endif
