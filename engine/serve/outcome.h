// SPDX-License-Identifier: Apache-2.0
//
// How a fault ends.
#ifndef FAULTLINE_SERVE_OUTCOME_H
#define FAULTLINE_SERVE_OUTCOME_H

#include <stdint.h>

#include "engine/vm/stage.h"

struct fl_shard;
struct fl_vm;

// What becomes of every fault that was read. There is no other.
enum fl_outcome {
    FL_INSTALLED, // its bytes are there
    FL_ZEROED,    // zeros are there
    FL_POISONED,  // the toucher gets SIGBUS
    FL_PARKED,    // waits in fl_parks, or with the whole VM for its end
};

// Counts a fault of the VM that is resolved, and how long it took. Owner worker only.
void fl_resolved(struct fl_shard *shard, struct fl_vm *vm, enum fl_outcome outcome,
                 enum fl_stage stage, uint64_t read_ns);

#endif
