// SPDX-License-Identifier: Apache-2.0
//
// One fault, from its message to its outcome. A reader starts here.
//
//   fl_inbox_turn   reads messages: events first, then each fault
//   fl_fault        one message -> one of the outcomes below
//   fl_resolve      a page -> where its bytes are -> install.h, or park.h until they are there
//
// Owner worker only.
#ifndef FAULTLINE_WORKER_FAULT_H
#define FAULTLINE_WORKER_FAULT_H

#include <stdbool.h>
#include <stdint.h>

struct fl_park;
struct fl_vm;
struct fl_shard;

// What becomes of every fault that was read. There is no other.
enum fl_outcome {
    FL_INSTALLED, // its bytes are there
    FL_ZEROED,    // zeros are there
    FL_POISONED,  // the toucher gets SIGBUS
    FL_PARKED,    // waits in fl_parks, or with the whole VM for its end
};

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
};

// The first page of what is asked for. *ret_there: how many of them are there now, and whoever had
// asked for them before is awake.
enum fl_outcome fl_fault(struct fl_shard *shard, struct fl_vm *vm, const struct fl_ask *ask,
                         uint32_t *ret_there);

// Tells who touched an address for which there are no bytes, whatever the size of its page is.
enum fl_outcome fl_fault_outside(struct fl_vm *vm, uint64_t address);

// Resolves one page of the VM. read_ns is when its fault was read, 0 if nobody faulted. `park` is
// the one that the page waits in, or NULL; it is ended when the page is resolved.
enum fl_outcome fl_resolve(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                           uint64_t read_ns, struct fl_park *park);
// Somebody waits for a page that only a fill had asked for.
void fl_resolve_hurry(struct fl_vm *vm, uint64_t page);

#endif
