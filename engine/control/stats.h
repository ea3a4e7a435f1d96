// SPDX-License-Identifier: Apache-2.0
//
// What the engine has done so far, summed over its workers. Control thread.
#ifndef FAULTLINE_CONTROL_STATS_H
#define FAULTLINE_CONTROL_STATS_H

#include <stdint.h>

#include "engine/base/histogram.h"
#include "engine/cache/frame_cache.h"
#include "engine/host/huge_pool.h"

struct fl_engine;

struct fl_stats {
    unsigned workers;
    unsigned vms;
    uint64_t attached;
    uint64_t refused;
    uint64_t faults;
    uint64_t installed;
    uint64_t zeroed;
    uint64_t poisoned;
    uint64_t duplicates;
    uint64_t write_protect; // messages
    uint64_t minor;
    uint64_t parked;
    uint64_t oldest_wait_ns; // of a fault for storage, at the last heartbeat; 0 without a keeper
    uint64_t copied_pages;
    uint64_t zeroed_pages;
    uint64_t removed_pages;
    uint64_t dropped_pages;
    uint64_t ahead_pages;
    uint64_t ahead_unproven_pages;
    uint64_t hits;
    uint64_t misses;
    uint64_t replaying;
    uint64_t replays;
    uint64_t replayed_pages;
    uint64_t replay_late;
    uint64_t short_huge;   // fills that found no page of 2 MiB
    uint64_t short_memory; // ... no memory for a page of 4 KiB
    uint64_t found_missing;
    unsigned lacking; // VMs for whose pages there is no memory now
    struct fl_huge_pool pool;
    uint64_t promised; // pages of the pool that VMs will need
    struct fl_cache_stats cache;
    uint64_t allocated_bytes; // by jemalloc; 0 where it is not the allocator
    uint64_t resident_bytes;
    struct fl_histogram latency_ns;
};

// Large: not for the stack.
void fl_stats_collect(struct fl_engine *engine, struct fl_stats *ret_stats);

#endif
