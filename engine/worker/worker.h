// SPDX-License-Identifier: Apache-2.0
//
// A worker: one thread, pinned to a core, that owns a shard of VMs and is the only one to read
// their userfaultfds and to install pages into them.
#ifndef FAULTLINE_WORKER_WORKER_H
#define FAULTLINE_WORKER_WORKER_H

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/base/histogram.h"
#include "engine/base/mailbox.h"
#include "engine/cache/frame_cache.h"
#include "engine/serve/vm_call.h"
#include "engine/vm/prefetch.h"
#include "engine/vm/vm.h"
#include "engine/worker/engine.h"

struct fl_worker_stats {
    fl_counter faults; // messages that asked for a page
    fl_counter installed;
    fl_counter zeroed;
    fl_counter poisoned;
    fl_counter duplicates;
    fl_counter write_protect; // messages of modes that the engine does not register
    fl_counter minor;
    fl_counter parked; // now, not ever
    fl_counter copied_units;
    fl_counter zeroed_units;
    fl_counter removed_units;
    fl_counter dropped; // pages of whatever size that were there, and then not, without an event
    fl_counter dropped_units;
    fl_counter ahead_units; // to be installed together with a page that was asked for
    fl_counter hits;
    fl_counter misses;
    fl_counter replaying; // VMs, now
    fl_counter replays;   // that came to their end
    fl_counter replayed_units;
    fl_counter found_missing;       // looks before a release that found pages absent
    fl_counter short_huge;          // fills that found no page of 2 MiB,
    fl_counter short_memory;        // and no memory for one of 4 KiB
    fl_counter replay_late;         // the sum of struct fl_replay's
    struct fl_histogram latency_ns; // message read -> its page is there
};

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
    jmp_buf anew; // where it goes on when it was taken from
};

struct fl_worker {
    // Constant.
    unsigned index; // of all workers and lanes
    bool is_lane;
    struct fl_engine *engine;
    const struct fl_engine_options *options;
    struct fl_cache *cache;
    struct fl_prefetch_budget prefetch;
    struct fl_mailbox *control; // to whom VMs that are gone are mailed
    struct fl_thread own;       // the thread that was started with it, whatever that runs now
    int epoll_fd;
    uint8_t *zeros; // 2 MiB of them, read-only

    // Any thread.
    struct fl_mailbox mailbox;
    struct fl_worker_stats stats;     // written by the owner
    _Atomic unsigned vms;             // those on their way are counted, too
    _Atomic(struct fl_thread *) runs; // it; written by itself, and by the thread that takes it over
    // Of a lane:
    atomic_bool busy;         // a VM is in it, or on its way
    _Atomic uint64_t slow_ns; // when its VM last made somebody wait
    struct fl_mail go_on;     // from the watcher, who owns it while `busy` says so for this
    struct fl_worker *go_on_with;

    // Owner only.
    bool stopping;
    struct fl_worker *leave_for; // of a lane: its thread is to go on with this worker
    struct fl_vm *leaving;       // to a lane, at the end of the round; NULL: none
    uint64_t now;                // as of the beginning of the round
    uint64_t busy_ns;            // when there was last something to do for a VM
    uint64_t look_ns;            // when doubtful VMs and deadlines are looked at next
    unsigned doubtful;
    unsigned unwatched;
    unsigned recorded; // VMs
    struct fl_watch watch_mailbox;
    struct cds_list_head owned;
    struct cds_list_head hot;
    struct cds_list_head retry; // parks
    struct cds_list_head due;   // of them, those that are being looked at
    struct cds_list_head tasks;
    struct cds_list_head dead; // VMs that are gone, to be mailed at the end of the round
};

static inline struct fl_thread *fl_worker_runs(const struct fl_worker *worker)
{
    return atomic_load_explicit(&worker->runs, memory_order_relaxed);
}

int fl_worker_start(struct fl_worker *worker);
// Control thread, once nobody is taken anything any more. Has all threads of workers and lanes end,
// each at the end of a round: what it had read is acted on. VMs stay as they are. With `leave`, one
// that is within a call that takes long is not waited for: it touches nothing any more.
void fl_workers_halt(struct fl_engine *engine, bool leave);
// After that: frees what it has. It must own no VM any more.
void fl_worker_free(struct fl_worker *worker);

// Owner only. For how long the oldest fault has been waiting to be read from storage, in ns; 0 if
// none is.
uint64_t fl_worker_oldest_wait(struct fl_worker *worker);

// The one who holds the VM hands it over.
void fl_worker_attach(struct fl_worker *worker, struct fl_vm *vm);

// Owner only. It is looked at now and then whether the VM is gone.
void fl_worker_doubt(struct fl_worker *worker, struct fl_vm *vm);

// Owner only. The VM's memory is gone, or complete and unregistered: nobody waits for us any more.
void fl_worker_vm_gone(struct fl_worker *worker, struct fl_vm *vm);

// Any thread. The worker, not a lane, with the fewest VMs.
struct fl_worker *fl_worker_fewest(const struct fl_engine *engine);

// --- between worker.c, worker_vms.c, worker_thread.c and lane.c ---

// Owner only: serves until the worker is told to stop.
void fl_worker_work(struct fl_worker *worker);
void fl_worker_make_hot(struct fl_worker *worker, struct fl_vm *vm);
void fl_worker_cool_down(struct fl_vm *vm);
void fl_worker_bury(struct fl_worker *worker);
// Owner only, or the thread that takes the worker over: the VM goes to another.
void fl_worker_give_up(struct fl_worker *worker, struct fl_vm *vm, struct fl_worker *to);
int fl_worker_watch(struct fl_worker *worker, int fd, uint32_t events, struct fl_watch *watch);

#endif
