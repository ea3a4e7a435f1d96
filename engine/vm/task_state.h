// SPDX-License-Identifier: Apache-2.0
//
// Work for a VM that no thread waits for (task.h). Owner worker only.
#ifndef FAULTLINE_VM_TASK_STATE_H
#define FAULTLINE_VM_TASK_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

struct fl_task_wait;
struct fl_vm;
struct fl_shard;

// One slice, no longer than the copying of a frame; true if something was done. False: it waits for
// a frame, pauses, or has nothing to do until mail comes.
typedef bool fl_task_slice(struct fl_shard *shard, struct fl_vm *vm);
struct fl_task {
    struct fl_vm *vm;
    fl_task_slice *slice;
    uint64_t not_before_ns;    // it pauses until then
    struct fl_task_wait *wait; // NULL unless it waits for a frame
    struct cds_list_head in_worker;
};

#endif
