// SPDX-License-Identifier: Apache-2.0
//
// The engine: what its parts share. Started and stopped by the control thread.
#ifndef FAULTLINE_WORKER_ENGINE_H
#define FAULTLINE_WORKER_ENGINE_H

#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/ahead/recording_orders.h"
#include "engine/base/histogram.h"
#include "engine/base/mailbox.h"
#include "engine/base/sleeper.h"
#include "engine/files/files_counts.h"
#include "engine/host/host_memory.h"
#include "engine/link/degraded.h"
#include "engine/serve/kill.h"
#include "engine/vm/capture_counts.h"
#include "engine/vm/histories.h"
#include "engine/vm/image_counts.h"
#include "engine/vm/options.h"
#include "engine/vm/vms.h"

struct fl_cache;
struct fl_captures;
struct fl_collapser;
struct fl_engine;
struct fl_files;
struct fl_images;
struct fl_io_pool;
struct fl_keeper_link;
struct fl_lanes;
struct fl_ledger;
struct fl_life_table;
struct fl_store_space;
struct fl_limit_watch;
struct fl_templates;
struct fl_vm;
struct fl_worker;

// How VMs ended that this engine had a hand in; none that ended by themselves. Control thread.
struct fl_ends {
    uint64_t released;       // complete, unregistered, and let go
    uint64_t poisoned;       // of those, VMs with poisoned pages
    uint64_t poisoned_pages; // and so many they were, of 4 KiB
    uint64_t killed;
};

// What the control thread counts, in the ledger (ledger.h). It alone writes it, but for what says
// otherwise.
struct fl_engine_counts {
    uint64_t attached;
    uint64_t refused;
    uint64_t unowned; // handshakes for memory of no process that is known
    struct fl_ends ends;
    // What others count who know nothing of ledgers, as it was when it was asked for last.
    uint64_t log_dropped;
    uint64_t log_held_back;
    uint64_t calls_refused;
    uint64_t deaths;      // of engines, under all keepers
    uint64_t deaths_seen; // of these, under the keeper that there is, as far as it has told
    struct fl_histogram attach_ns;   // a connection was accepted -> its VM is there
    struct fl_histogram takeover_ns; // for which no engine served
    struct fl_capture_counts captures;
    struct fl_files_counts files; // written by the files' thread
};

// What the engine has the rooms above it do. All of it in the control thread, which must not block.
struct fl_engine_ops {
    // Required. The VM's memory is gone, or complete and unregistered, and no worker has it any
    // more: forgets it, closes its descriptors and frees it.
    void (*dispose)(struct fl_engine *engine, struct fl_vm *vm);
    // Required. A refused VM has forked: sees to it that the faults of its child are answered, too.
    // Takes the child's userfaultfd.
    void (*refuse_child)(struct fl_engine *engine, int uffd);
};

struct fl_engine {
    struct fl_engine_options options;
    const struct fl_engine_ops *ops;
    struct fl_io_pool *io_pool;
    struct fl_cache *cache;
    struct fl_images
        *images; // of the store; NULL for a raw file. Set and freed by the starter of the engine
    const char *raw_file;               // or its path; likewise
    struct fl_keeper_link *keeper_link; // what the keeper holds; likewise
    struct fl_templates *templates;     // likewise
    struct fl_captures *captures;       // likewise; NULL for a raw file
    struct fl_files *files;             // likewise
    struct fl_life_table *life;         // by which the keeper sees us die
    int life_fd;                        // its memfd
    sem_t begun;                        // posted by each thread of a worker or lane that has
    cpu_set_t cpus;                     // that we may run on
    struct fl_worker *workers;
    unsigned worker_count;
    struct fl_collapser *collapser;  // its thread runs once a VM needs it
    struct fl_limit_watch *limits;   // looks which VMs their memory limits slow down
    struct fl_sleeper limit_watcher; // that thread, while no page is filled
    struct fl_sleeper call_watcher;  // the watcher of lanes, while no thread is within a call
    struct fl_lanes *lanes;          // for VMs that make the thread that serves them wait
    struct fl_mailbox control;       // mail to the control thread
    struct fl_vms vms;
    struct fl_killer killer;
    _Atomic uint64_t prefetch_unproven; // pages of all VMs that may have been installed in vain
    uint64_t started_ns;
    uint64_t generation;      // control thread: which engine of its keeper it is; 0: it has none
    bool stall_noted;         // control thread: the take-over is counted
    struct fl_ledger *ledger; // the starter's
    struct fl_engine_counts *counts; // in it; control thread
    // Control thread: the last question to all workers whether they live, and whether it is open.
    struct {
        uint64_t asked_ns;
        bool open;
        bool files; // the thread of the files has not answered
    } beat;
    struct fl_recording_orders recordings; // control thread
    struct fl_histories histories;         // control thread
    struct fl_host_memory memory;
    struct fl_degraded degraded;             // control thread
    struct fl_image_counting image_counting; // control thread
    struct fl_store_space *space; // set and freed by the starter of the engine; NULL: none
};

// The calling thread becomes the control thread: it is registered with RCU until fl_engine_stop().
// The ledger outlives the engine.
int fl_engine_start(const struct fl_engine_options *options, const struct fl_engine_ops *ops,
                    struct fl_ledger *ledger, struct fl_engine **ret_engine);
// Once, when VMs may come: takes the memory that is to be taken at once. A standby of an engine
// that lives must not do so.
void fl_engine_serves(struct fl_engine *engine);
// Any thread. All workers, lanes behind them: there may be more of them later, and never fewer.
unsigned fl_engine_workers(const struct fl_engine *engine);
struct fl_worker *fl_engine_worker(const struct fl_engine *engine, unsigned index);
// Any thread. Whether a VM's working set is being streamed in, or put together.
bool fl_engine_replays(const struct fl_engine *engine);
// Control thread, now and then: says what the engine was not allowed to do.
void fl_engine_look(struct fl_engine *engine);
// Control thread, when there is no VM left.
void fl_engine_stop(struct fl_engine *engine);

#endif
