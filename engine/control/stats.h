// SPDX-License-Identifier: Apache-2.0
//
// What the server has done so far and how it stands, in numbers: one look, for the status and the
// metrics. collect.h fills it; counters.h has a row for each number.
#ifndef FAULTLINE_CONTROL_STATS_H
#define FAULTLINE_CONTROL_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/ahead/recording_orders.h"
#include "engine/base/log.h"
#include "engine/cache/frame_cache.h"
#include "engine/control/status_lanes.h"
#include "engine/host/huge_pool.h"
#include "engine/template/templates.h"
#include "engine/worker/engine.h"
#include "engine/worker/worker.h"

struct fl_stats {
    struct fl_shard_stats workers; // the sum of all workers and lanes
    struct fl_cache_stats cache;
    struct fl_ends ends;
    struct fl_huge_pool pool;
    struct fl_lanes_now lanes;
    struct fl_recording_orders_now recordings;
    struct fl_templates_stats templates;
    struct {
        unsigned workers;
        unsigned vms;
        unsigned lacking; // VMs for whose pages there is no memory now
        bool draining;
        bool replay_on;
        bool replay_paused;
        bool scarce;
        bool huge_scarce;
        uint64_t attached;
        uint64_t refused;
        uint64_t unowned; // handshakes for memory of no process that is known
        uint64_t
            oldest_wait_ns; // of a fault for storage, at the last heartbeat; 0 without a keeper
        uint64_t unproven;  // pages of 4 KiB
        uint64_t promised;  // pages of 2 MiB
    } engine;
    struct {
        uint64_t allocated; // bytes, by jemalloc; 0 where it is not the allocator
        uint64_t resident;  // bytes
        unsigned descriptors;
        unsigned descriptors_limit;
    } process;
    struct fl_log_counts log;
    struct {
        bool up;
        uint64_t generation;
        uint64_t deaths;
    } keeper;
};

#endif
