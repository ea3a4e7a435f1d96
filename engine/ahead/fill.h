// SPDX-License-Identifier: Apache-2.0
//
// Filling a VM's memory without being asked by a fault: all of it (populate), or all that would not
// read as zeros anyway (before the VM is released). Done by the owner in slices, after demand
// faults (task.h); skips pages that are there and pages that the guest gave back.
#ifndef FAULTLINE_AHEAD_FILL_H
#define FAULTLINE_AHEAD_FILL_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/serve/task.h"

struct fl_vm;
struct fl_worker;

enum fl_fill_goal {
    FL_FILL_NONE,
    FL_FILL_ALL,     // every page
    FL_FILL_NONZERO, // what differs from the zeros an unregistered page reads as
};

struct fl_fill {
    enum fl_fill_goal goal;
    uint64_t begun_ns;
    uint64_t next;    // page to look at
    uint64_t end;     // ... before this one
    uint64_t seen;    // page up to which all was seen to be there, after it was filled
    uint64_t probed;  // pages that were poisoned to see whether they are there, to be filled now
    unsigned in_vain; // times that something was missing there since
    uint64_t ahead;   // first page whose frame was not yet asked for
    bool suspended;
    struct fl_frame_id bad; // a piece of the map that cannot be read; pack 0: none
    int bad_error;
    bool unregistered; // being released: only events are still to be read
    struct fl_task task;
};

void fl_fill_init(struct fl_vm *vm);
// Owner only. Begins, or widens, the goal.
void fl_fill_begin(struct fl_worker *worker, struct fl_vm *vm, enum fl_fill_goal goal);
// Owner only. It stops here, and goes on with the VM's next owner.
void fl_fill_suspend(struct fl_vm *vm);
void fl_fill_resume(struct fl_worker *worker, struct fl_vm *vm);
// Owner only. A predecessor has unregistered it already: lets it go.
void fl_fill_go_on_releasing(struct fl_worker *worker, struct fl_vm *vm);

#endif
