// SPDX-License-Identifier: Apache-2.0
//
// What the server has done so far and how it stands, in numbers: one look, for the status and the
// metrics. collect.h fills it; counters.h has a row for each number.
#ifndef FAULTLINE_CONTROL_STATS_H
#define FAULTLINE_CONTROL_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/accept/captures.h"
#include "engine/ahead/recording_orders.h"
#include "engine/base/log.h"
#include "engine/cache/frame_cache.h"
#include "engine/control/status_lanes.h"
#include "engine/files/files.h"
#include "engine/host/huge_pool.h"
#include "engine/host/process_usage.h"
#include "engine/image/store_space.h"
#include "engine/template/templates.h"
#include "engine/vm/capture_counts.h"
#include "engine/vm/image_counts.h"
#include "engine/worker/engine.h"
#include "engine/worker/worker.h"

// What is not known just now: it is left out of the metrics, and is null in the status.
#define FL_STAT_UNKNOWN UINT64_MAX

struct fl_stats {
    struct fl_shard_stats workers; // the sum of all workers and lanes
    struct fl_cache_stats cache;
    struct fl_ends ends;
    struct fl_histogram attach_ns;
    struct fl_histogram takeover_ns;
    struct fl_huge_pool pool;
    struct fl_lanes_now lanes;
    struct fl_recording_orders_now recordings;
    struct fl_templates_stats templates;
    struct fl_files_stats files;
    struct fl_captures_now captures;
    struct fl_capture_counts captured;
    uint64_t captures_failed; // for whatever reason
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
        uint64_t refused_calls; // system calls that the filter has refused
        uint64_t unowned;       // handshakes for memory of no process that is known
        uint64_t oldest_ns;     // of a fault that waits
        uint64_t unproven;      // pages of 4 KiB
        uint64_t promised;      // pages of 2 MiB
    } engine;
    struct {
        uint64_t allocated; // bytes, by jemalloc; 0 where it is not the allocator
        unsigned descriptors;
        unsigned descriptors_limit;
    } memory;
    struct fl_log_counts log;
    struct fl_process_usage engine_process;
    struct fl_process_usage keeper_process;
    struct fl_store_space_now store;
    struct {
        bool up;
        bool stopped; // by a signal, or traced: it looks after nothing
        uint64_t generation;
        uint64_t deaths;   // of engines, under all keepers
        uint64_t stall_ns; // of the last take-over
    } keeper;
    struct fl_image_shown image[FL_IMAGE_ROWS_ALL];
};

#endif
