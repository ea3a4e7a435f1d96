// SPDX-License-Identifier: Apache-2.0
//
// Lanes: VMs that make the thread that serves them wait get a thread of their own.
//
// A lane is a worker of one VM, unpinned. VMs come to it in two ways:
//  - A call for the VM takes long (vm_call.h). The watcher, a thread of its own, sees that, and has
//    the thread of a lane that is free go on with all that the worker has but this VM. The thread
//    that is within the call comes out of it as the lane's: it is still the only one that touches
//    the VM, so that a removal cannot race what the call fills.
//  - The VM's memory limit slows it down (memory_limit.h): its worker hands it over.
// It goes back to a worker when neither has happened for a while.
//
//   worker W, thread A: in a call for VM 7          lane L, thread B: free
//   the watcher:        A's call IN -> TAKING       mail to L: go on with W
//   thread B:           leaves L, is W's now; gives VM 7 up to L; A's call -> TAKEN
//   thread A:           its call returns: is L's now, serves VM 7
//
// There are FL_LANES of them at most, made as they are needed, one ahead. If all are in use, the
// worker waits with its VM, as the log says, and its other VMs with it.
#ifndef FAULTLINE_WORKER_LANE_H
#define FAULTLINE_WORKER_LANE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fl_engine;
struct fl_thread;
struct fl_vm;
struct fl_worker;

enum { FL_LANES = 255, FL_LANE_REASON = 512 };

struct fl_lane_counts {
    _Atomic uint64_t taken;   // times that a worker was taken what it had
    _Atomic uint64_t refused; // times that there was no lane
};

struct fl_lanes {
    struct fl_engine *engine;
    pthread_t watcher;
    bool watching;
    atomic_bool ends;
    // Any thread. The first `count` are there for as long as the engine.
    _Atomic unsigned count;
    struct fl_worker *lane[FL_LANES];
    struct fl_lane_counts *counts; // in the ledger
    // The watcher's.
    struct fl_seen *seen; // of each thread
};

// Control thread, after the workers were started. -ENOMEM ...
int fl_lanes_start(struct fl_engine *engine);
// Control thread: from here on no worker goes over to another thread.
void fl_lanes_end_watch(struct fl_lanes *lanes);
// Control thread, when the threads have ended.
void fl_lanes_free(struct fl_lanes *lanes);

// Any thread: for how long the thread that serves this lane has been within a call, in ns, at
// least; 0 if it is not, or not for long.
uint64_t fl_lane_blocked_ns(const struct fl_worker *lane, uint64_t now);

// Any thread: why the VM has a lane, as far as that is known.
void fl_lane_reason(const struct fl_vm *vm, char *text, size_t size);

// Owner only: the VM is to have a lane from the end of this round on.
void fl_lane_wanted(struct fl_worker *worker, struct fl_vm *vm);

// --- for workers ---

// Owner only, at the end of a round, when nothing on the stack refers to a VM.
void fl_lane_round(struct fl_worker *worker);
// Owner only: when a lane's VM may go back; FL_NEVER.
uint64_t fl_lane_next_due(const struct fl_worker *worker);
// The thread that has left its lane for a worker becomes that worker's.
void fl_lane_go_on_with(struct fl_thread *thread, struct fl_worker *lane);

#endif
