// SPDX-License-Identifier: Apache-2.0
//
// One fault, from its message to its outcome (outcome.h). A reader starts here.
//
//   fl_inbox_turn     reads messages: events first, then each fault
//   fl_fault          one message -> its outcome
//   fl_fault_around   the page that was asked for, and how many behind it come with it
//   fl_resolve_some   pages -> where their bytes are
//   want.h            installed (install.h), parked until they are there (park.h), or failed
//
// Owner worker only.
#ifndef FAULTLINE_WORKER_FAULT_H
#define FAULTLINE_WORKER_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/serve/outcome.h"

struct fl_shard;
struct fl_vm;

// Reads and acts on one batch; true if there was any message.
bool fl_inbox_turn(struct fl_shard *shard, struct fl_vm *vm);

// Acts on the events that a predecessor had read and did not live to act on, and clears the inbox.
// Its faults come again when their waiters are woken.
void fl_inbox_replay(struct fl_shard *shard, struct fl_vm *vm);

// What messages ask for: pages of the VM in a row.
struct fl_ask {
    uint64_t address; // of the first page
    uint64_t flags;   // of its message
    uint32_t pages;   // at least 1
    bool replayed;    // set by fl_fault(): it is one of FL_STAGE_REPLAY
};

// The first page of what is asked for. *ret_there: how many of them are there now, and threads
// that had asked for them before are awake.
enum fl_outcome fl_fault(struct fl_shard *shard, struct fl_vm *vm, struct fl_ask *ask,
                         uint32_t *ret_there);

#endif
