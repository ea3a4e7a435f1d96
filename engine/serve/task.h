// SPDX-License-Identifier: Apache-2.0
//
// Work for a VM that no thread waits for: filling it (fill.h), streaming its working set in
// (replay.h). Its owner does it in slices, after demand faults, each VM in its turn. Owner worker
// only.
#ifndef FAULTLINE_SERVE_TASK_H
#define FAULTLINE_SERVE_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/serve/install.h"
#include "engine/vm/task_state.h"
#include "snapshot/read.h"

struct fl_vm;
struct fl_shard;

// The frame that it waited for is there, or `error` says why it is not.
typedef void fl_task_came(struct fl_shard *shard, struct fl_vm *vm, int error);

void fl_task_init(struct fl_task *task, struct fl_vm *vm, fl_task_slice *slice);
// Nothing happens if it runs already.
void fl_task_start(struct fl_shard *shard, struct fl_task *task);
bool fl_task_runs(const struct fl_task *task);
// It may have ended already.
void fl_task_end(struct fl_task *task);

// Has the frame read, and `came` called when it is there; or pauses, if there is no memory.
void fl_task_wait_for(struct fl_shard *shard, struct fl_task *task, struct fl_frame_id id,
                      fl_task_came *came);
// The same for one that will say that it has taken the frame (frame_cache.h).
void fl_task_wait_to_take(struct fl_shard *shard, struct fl_task *task, struct fl_frame_id id,
                          fl_task_came *came);
// Pauses, or lets the VM go, as the result of an installation wants it. True: on to the next pages,
// if this is DONE; FAILED is left to the caller, too.
bool fl_task_goes_on(struct fl_shard *shard, struct fl_task *task, enum fl_install result);
// For a VM whose userfaultfd has a REMOVE in flight.
void fl_task_pause(struct fl_shard *shard, struct fl_task *task);
// For want of memory.
void fl_task_pause_long(struct fl_shard *shard, struct fl_task *task);

// Counts pages of 4 KiB that replay has brought ahead of their touch.
void fl_task_replayed(struct fl_shard *shard, struct fl_vm *vm, uint64_t units);

// One slice of this one, if it can go on now.
void fl_task_run(struct fl_shard *shard, struct fl_task *task);
// One slice for one of the worker's VMs; true if something was done.
bool fl_tasks_run(struct fl_shard *shard);
// When the first that pauses goes on; FL_NEVER if none does.
uint64_t fl_tasks_next_due(const struct fl_shard *shard);

#endif
