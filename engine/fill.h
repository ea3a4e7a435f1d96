// SPDX-License-Identifier: Apache-2.0
//
// Filling a VM's memory without being asked by a fault: all of it (populate), or all that would not
// read as zeros anyway (before the VM is released). Done by the owner in slices, after demand
// faults; skips pages that are there and pages that the guest gave back.
#ifndef FAULTLINE_ENGINE_FILL_H
#define FAULTLINE_ENGINE_FILL_H

#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/frame_cache.h"

struct fl_vm;
struct fl_worker;

enum fl_fill_goal {
    FL_FILL_NONE,
    FL_FILL_ALL,     // every page
    FL_FILL_NONZERO, // what differs from the zeros an unregistered page reads as
};

// The wait for one frame. Its life is that of the message, not of the VM: the VM may go first.
struct fl_fill_wait {
    struct fl_waiter waiter;
    struct fl_worker *worker;
    struct fl_vm *vm; // NULL once the VM is gone
};

struct fl_fill {
    enum fl_fill_goal goal;
    uint64_t begun_ns;
    uint64_t next;             // page to look at
    uint64_t ahead;            // first page whose frame was not yet asked for
    uint64_t not_before_ns;    // a REMOVE is in flight: pause
    bool unregistered;         // being released: only events are still to be read
    struct fl_fill_wait *wait; // NULL unless it waits for a frame
    struct cds_list_head in_worker;
};

void fl_fill_init(struct fl_fill *fill);
// Owner only. Begins, or widens, the goal.
void fl_fill_begin(struct fl_worker *worker, struct fl_vm *vm, enum fl_fill_goal goal);
// Owner only. A predecessor has unregistered it already: lets it go.
void fl_fill_go_on_releasing(struct fl_worker *worker, struct fl_vm *vm);
// Owner only. One slice for one of the worker's VMs; true if something was done.
bool fl_fill_run(struct fl_worker *worker);
// Owner only. When a fill that pauses goes on; FL_NEVER if none does.
uint64_t fl_fill_next_due(const struct fl_worker *worker);
// Owner only. The VM is gone.
void fl_fill_abandon(struct fl_vm *vm);

#endif
