// SPDX-License-Identifier: Apache-2.0
//
// How far the un-protecting of all of a VM's pages has come (unprotect.h). Owner worker only.
#ifndef FAULTLINE_VM_UNPROTECT_STATE_H
#define FAULTLINE_VM_UNPROTECT_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/vm/task_state.h"

struct fl_unprotect {
    bool runs;
    uint64_t next;                                          // page; all before are not protected
    uint64_t most;                                          // pages in one call, at least 1
    void (*over)(struct fl_shard *shard, struct fl_vm *vm); // NULL: nobody waits for it
    struct fl_task task;
};

#endif
