// SPDX-License-Identifier: Apache-2.0
//
// A shard: the VMs that one worker serves, as far as the rooms below the worker know of it. They
// count in it, note in its lists what is to be done later, and mail to its owner. Each worker, and
// each lane, has one (worker.h); a VM names the one that it belongs to as its owner.
//
// Owner only, but for what says otherwise: the thread that serves the shard's VMs. Mail to a shard
// is delivered in that thread, with the shard as its owner.
#ifndef FAULTLINE_VM_SHARD_H
#define FAULTLINE_VM_SHARD_H

#include <stdatomic.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/base/counter.h"
#include "engine/base/histogram.h"
#include "engine/base/mailbox.h"
#include "engine/vm/options.h"
#include "engine/vm/prefetch.h"
#include "engine/vm/stage.h"

struct fl_cache;
struct fl_call;
struct fl_collapser;
struct fl_host_memory;
struct fl_killer;
struct fl_shard;
struct fl_vm;
struct fl_watch;

// Written by the owner, read by anyone.
struct fl_shard_stats {
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
    fl_counter ahead_units;      // to be installed together with a page that was asked for
    fl_counter zero_ahead_units; // ... of these, zeros that came with a page of zeros,
    fl_counter zero_used_units;  // and those that are known to have been of use
    fl_counter hits;
    fl_counter misses;
    fl_counter first_pages;     // in ranges of 2 MiB that had none (first_pages.h)
    fl_counter collapsing;      // VMs whose pages are being put together, now
    fl_counter collapsed;       // ranges of 2 MiB that were,
    fl_counter collapse_failed; // calls for it that failed,
    fl_counter collapse_filled; // and pages of 4 KiB that completed ranges for it
    fl_counter replaying;       // VMs, now
    fl_counter replays;         // that came to their end
    fl_counter replayed_units;
    fl_counter found_missing;                  // looks before a release that found pages absent
    fl_counter short_huge;                     // fills that found no page of 2 MiB,
    fl_counter short_memory;                   // and no memory for one of 4 KiB
    fl_counter replay_late;                    // the sum of struct fl_replay's
    struct fl_histogram latency_ns[FL_STAGES]; // message read -> its page is there
};

// What rooms below the worker have it do. Its functions run in the owner's thread, in the middle of
// work for that VM: they free no VM and do not block but within calls for it (vm_call.h).
struct fl_shard_ops {
    // Required. The VM is in release, and a look found all there that must be: a slice of the rest.
    // Ends the VM when it is let go. Pauses the task of its fill if it must come again.
    void (*release)(struct fl_shard *shard, struct fl_vm *vm);
};

struct fl_shard {
    // Constant.
    const struct fl_shard_ops *ops;
    const struct fl_engine_options *options;
    struct fl_cache *cache;
    struct fl_prefetch_budget prefetch;
    struct fl_mailbox *control;     // of the control thread, to which VMs that are gone are mailed
    const struct fl_killer *killer; // kill.h
    const struct fl_host_memory *memory; // of which replay takes no more than there is to spare
    struct fl_collapser *collapser;      // puts pages of 2 MiB together
    int epoll_fd;
    uint8_t *zeros;               // 2 MiB of them, read-only
    struct fl_shard_stats *stats; // in the ledger (ledger.h), on pages of its own

    // Any thread.
    struct fl_mailbox mailbox;
    // Of the thread that serves the shard. Written by it, and by the one that takes the shard over
    // (lane.h).
    _Atomic(struct fl_call *) call;
    // For the age of the oldest fault (worker/oldest_fault.h), written by the owner; 0: none.
    fl_counter round_ns;  // since when it is in this round; 0: it sleeps
    fl_counter batch_ns;  // when the messages were read that it acts on
    fl_counter parked_ns; // when the oldest fault was read that was parked at the last look

    // Owner only.
    uint64_t now;      // as of the beginning of the round
    uint64_t look_ns;  // when doubtful VMs and deadlines are looked at next
    unsigned doubtful; // VMs
    unsigned recorded; // VMs
    struct cds_list_head hot;
    struct cds_list_head retry; // parks
    struct cds_list_head due;   // of them, those that are being looked at
    struct cds_list_head tasks;
    struct cds_list_head dead; // VMs that are gone, to be mailed at the end of the round
};

static inline struct fl_call *fl_shard_call(const struct fl_shard *shard)
{
    return atomic_load_explicit(&shard->call, memory_order_relaxed);
}

// It is looked at now and then whether the VM is gone.
void fl_shard_doubt(struct fl_shard *shard, struct fl_vm *vm);

// The VM's memory is gone, or complete and unregistered: no thread waits for us any more.
void fl_shard_vm_gone(struct fl_shard *shard, struct fl_vm *vm);

// Has the owner told of events of a VM's descriptor: 0, or -errno.
int fl_shard_watch(struct fl_shard *shard, int fd, uint32_t events, struct fl_watch *watch);
// -1 is a no-op.
void fl_shard_unwatch(struct fl_shard *shard, int fd);

#endif
