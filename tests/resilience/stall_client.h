// SPDX-License-Identifier: Apache-2.0
//
// A client of the stall run: the process of a VM, with one thread. It touches pages that it has
// never touched, at a low rate, and times each touch. It records the touches that overlap the
// window that the driver opens around an event.
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

// Only the client writes to it. But the driver empties `window` while the window is closed.
struct stall_slot {
    _Atomic uint64_t since_ns; // when the touch that goes on began; 0: no touch goes on
    _Atomic uint64_t touches;
    _Atomic uint32_t round;   // the last round that it has begun
    struct bench_hist window; // touches that overlap the window
};

// Times are of CLOCK_MONOTONIC.
struct stall_board {
    _Atomic uint64_t from_ns; // start of the window; 0: it is closed
    _Atomic uint64_t to_ns;   // its end; UINT64_MAX while that is not known
    _Atomic uint32_t renewed; // in the round of this number every VM is replaced
    _Atomic uint32_t round;   // grows between events; a VM that runs out of pages is replaced then
    struct stall_slot slot[];
};

// The body of a VM that is to be recorded: it touches all its pages in a row, as fast as it can.
int stall_sweeper_main(const struct stall_plan *plan);
// The body of a client, in a process of its own. It runs until a signal ends it. If it returns, it
// has printed why on stderr.
int stall_client_main(const struct stall_plan *plan, struct stall_board *board,
                      struct stall_slot *slot);

#endif
