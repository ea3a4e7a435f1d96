// SPDX-License-Identifier: Apache-2.0
//
// Filling a VM's memory without being asked by a fault: all of it (populate), or all that would not
// read as zeros anyway (before the VM is released). Done by the owner in slices, after demand
// faults (task.h); skips pages that are there and pages that the guest gave back.
#ifndef FAULTLINE_AHEAD_FILL_H
#define FAULTLINE_AHEAD_FILL_H

#include "engine/vm/fill_state.h"

struct fl_vm;
struct fl_shard;

void fl_fill_init(struct fl_vm *vm);
// Owner only. Begins, or widens, the goal.
void fl_fill_begin(struct fl_shard *shard, struct fl_vm *vm, enum fl_fill_goal goal);
// Owner only. It stops here, and goes on with the VM's next owner.
void fl_fill_suspend(struct fl_vm *vm);
void fl_fill_resume(struct fl_shard *shard, struct fl_vm *vm);
// Owner only. Tells the log, and the callback of the options, that the VM has all that it is to
// have.
void fl_fill_report(struct fl_shard *shard, struct fl_vm *vm);

#endif
