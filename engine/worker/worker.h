// SPDX-License-Identifier: Apache-2.0
//
// A worker: one thread, one a core, that owns a shard of VMs and is the only one to read
// their userfaultfds and to install pages into them.
#ifndef FAULTLINE_WORKER_WORKER_H
#define FAULTLINE_WORKER_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <urcu/compiler.h>
#include <urcu/list.h>

#include "engine/base/mailbox.h"
#include "engine/serve/vm_call.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

struct fl_engine;
struct fl_worker;

// A thread that runs a worker. Which one may change: see lane.h.
struct fl_thread {
    // Constant while it runs.
    unsigned slot; // of engine->life
    struct fl_engine *engine;
    pthread_t pthread;
    _Atomic pid_t tid; // 0: not known yet

    struct fl_call call;
    // Written by itself, or by the thread that takes from it while its call is TAKING.
    _Atomic(struct fl_worker *) worker;
};

struct fl_worker {
    struct fl_shard shard; // what the rooms below know

    // Constant.
    unsigned index; // of all workers and lanes
    bool is_lane;
    struct fl_engine *engine;
    struct fl_thread own; // the thread that was started with it, whatever that runs now

    // Any thread.
    _Atomic unsigned vms; // those on their way are counted, too
    // Of a lane:
    atomic_bool busy;         // a VM is in it, or on its way
    _Atomic uint64_t slow_ns; // when its VM last made its thread wait
    struct fl_mail go_on;     // from the watcher, which owns it while it has set `busy` for this
    struct fl_worker *go_on_with;

    // Owner only.
    bool stopping;
    struct fl_worker *leave_for; // of a lane: its thread is to go on with this worker
    struct fl_vm *leaving;       // to a lane, at the end of the round; NULL: none
    unsigned unwatched;          // VMs
    unsigned hot_count;          // of the hot list
    struct fl_watch watch_mailbox;
    struct cds_list_head owned;
};

static inline struct fl_worker *fl_worker_of(const struct fl_shard *shard)
{
    return caa_container_of(shard, struct fl_worker, shard);
}

// The thread that serves it.
static inline struct fl_thread *fl_worker_runs(const struct fl_worker *worker)
{
    return caa_container_of(fl_shard_call(&worker->shard), struct fl_thread, call);
}

// A lane has no VM any more.
static inline void fl_lane_is_free(struct fl_worker *lane)
{
    atomic_store(&lane->busy, false);
}

// What a new worker, or lane, of that index begins with.
void fl_worker_prepare(struct fl_worker *worker, struct fl_engine *engine, unsigned index);
int fl_worker_start(struct fl_worker *worker);
// Control thread, after fl_lanes_end_watch(). Has all threads of workers and lanes end,
// each at the end of a round: what it had read is acted on. VMs stay as they are. With `leave`, one
// that is within a call that takes long is not waited for: it touches nothing any more.
void fl_workers_halt(struct fl_engine *engine, bool leave);
// After that: frees what it has. It must own no VM any more.
void fl_worker_free(struct fl_worker *worker);

// Owner only. For how long the oldest fault has been waiting to be read from storage, in ns; 0 if
// none is.
uint64_t fl_worker_oldest_wait(struct fl_worker *worker);

// The thread that has the VM hands it over.
void fl_worker_attach(struct fl_worker *worker, struct fl_vm *vm);

// Any thread. The worker, not a lane, with the fewest VMs.
struct fl_worker *fl_worker_fewest(const struct fl_engine *engine);

// --- between worker_loop.c, visit.c, worker_vms.c, worker_thread.c and lane.c ---

// Owner only: serves until the worker is told to stop.
void fl_worker_work(struct fl_worker *worker);
void fl_worker_make_hot(struct fl_worker *worker, struct fl_vm *vm);
void fl_worker_cool_down(struct fl_worker *worker, struct fl_vm *vm);
void fl_worker_bury(struct fl_worker *worker);
// Owner only, or the thread that takes the worker over: the VM goes to another.
void fl_worker_give_up(struct fl_worker *worker, struct fl_vm *vm, struct fl_worker *to);

#endif
