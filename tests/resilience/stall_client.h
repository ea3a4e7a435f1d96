// SPDX-License-Identifier: Apache-2.0
//
// A client of the stall measurement: a VM's process with one thread that touches, at a low rate,
// pages it has never touched, and times each touch. The driver opens a window around each event; a
// touch that overlaps it is recorded.
#ifndef FAULTLINE_TESTS_RESILIENCE_STALL_CLIENT_H
#define FAULTLINE_TESTS_RESILIENCE_STALL_CLIENT_H

#include <stdatomic.h>
#include <stdint.h>

#include "bench/common/histogram.h"

struct stall_plan {
    const char *socket;
    uint32_t pages;       // of the image, and of each VM
    uint32_t interval_us; // mean time between two touches
    uint64_t seed;
};

// One writer: the client, but for `window`, which the driver empties while nothing is recorded.
struct stall_slot {
    _Atomic uint64_t since_ns; // CLOCK_MONOTONIC at the start of a touch that goes on; 0: none
    _Atomic uint64_t touches;
    _Atomic uint32_t round;   // the last one that it has begun
    struct bench_hist window; // touches that overlap the window
};

// Times are of CLOCK_MONOTONIC.
struct stall_board {
    _Atomic uint64_t from_ns; // the window; 0: closed, nothing is recorded
    _Atomic uint64_t to_ns;   // UINT64_MAX while its end is not known
    _Atomic uint32_t renewed; // in this round every VM is replaced
    _Atomic uint32_t round;   // raised between events: a VM that runs out of pages is replaced now
    struct stall_slot slot[];
};

// A VM that touches all its pages in a row, as fast as it can: one to be recorded.
int stall_sweeper_main(const struct stall_plan *plan);
// The body of a client, in a process of its own. It ends by a signal, or with a status that is not
// 0 after it has said why on stderr.
int stall_client_main(const struct stall_plan *plan, struct stall_board *board,
                      struct stall_slot *slot);

#endif
