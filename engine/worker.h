// SPDX-License-Identifier: Apache-2.0
//
// A worker: one thread, pinned to a core, that owns a shard of VMs and is the only one to read
// their userfaultfds and to install pages into them.
#ifndef FAULTLINE_ENGINE_WORKER_H
#define FAULTLINE_ENGINE_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/engine.h"
#include "engine/frame_cache.h"
#include "engine/histogram.h"
#include "engine/mailbox.h"
#include "engine/prefetch.h"
#include "engine/vm.h"

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
    fl_counter replay_late;         // the sum of struct fl_replay's
    struct fl_histogram latency_ns; // message read -> its page is there
};

struct fl_worker {
    // Constant.
    unsigned index;
    struct fl_engine *engine;
    const struct fl_engine_options *options;
    struct fl_cache *cache;
    struct fl_prefetch_budget prefetch;
    struct fl_mailbox *control; // to whom VMs that are gone are mailed
    pthread_t thread;
    int epoll_fd;
    uint8_t *zeros; // 2 MiB of them, read-only

    // Any thread.
    struct fl_mailbox mailbox;
    struct fl_worker_stats stats; // written by the owner
    _Atomic unsigned vms;         // the control thread counts here

    // Owner only.
    bool stopping;
    uint64_t now;     // as of the beginning of the round
    uint64_t busy_ns; // when there was last something to do for a VM
    uint64_t look_ns; // when doubtful VMs and deadlines are looked at next
    unsigned doubtful;
    unsigned unwatched;
    unsigned recorded; // VMs
    struct fl_watch watch_mailbox;
    struct cds_list_head owned;
    struct cds_list_head hot;
    struct cds_list_head retry; // parks
    struct cds_list_head tasks;
    struct cds_list_head dead; // VMs that are gone, to be mailed at the end of the round
};

int fl_worker_start(struct fl_worker *worker);
// Any thread but the worker. Returns when its thread has ended, at the end of a round: what it had
// read is acted on. Its VMs stay as they are.
void fl_worker_halt(struct fl_worker *worker);
// The same, and frees what it has. It must own no VM any more.
void fl_worker_stop(struct fl_worker *worker);

// Owner only. For how long the oldest fault has been waiting to be read from storage, in ns; 0 if
// none is.
uint64_t fl_worker_oldest_wait(struct fl_worker *worker);

// Control thread: hands a VM over.
void fl_worker_attach(struct fl_worker *worker, struct fl_vm *vm);

// Owner only. It is looked at now and then whether the VM is gone.
void fl_worker_doubt(struct fl_worker *worker, struct fl_vm *vm);

// Owner only. The VM's memory is gone, or complete and unregistered: nobody waits for us any more.
void fl_worker_vm_gone(struct fl_worker *worker, struct fl_vm *vm);

// --- between worker.c and worker_thread.c ---

// Owner only: serves until the worker is told to stop.
void fl_worker_work(struct fl_worker *worker);
int fl_worker_watch(struct fl_worker *worker, int fd, uint32_t events, struct fl_watch *watch);

#endif
