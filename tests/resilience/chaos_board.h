// SPDX-License-Identifier: Apache-2.0
//
// What the clients of a chaos run are doing, in memory that all processes of the run share. The
// driver reads it while they run, as a client that hangs cannot report anything.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_BOARD_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_BOARD_H

#include <stdatomic.h>
#include <stdint.h>

#include "bench/common/histogram.h"

enum { CHAOS_THREADS = 2 };

enum chaos_kind { CHAOS_SMALL, CHAOS_HUGE, CHAOS_CLONE, CHAOS_KINDS };

enum chaos_op { CHAOS_HANDSHAKE, CHAOS_TOUCH, CHAOS_WRITE, CHAOS_REMOVE, CHAOS_OPS };

// Only the client's thread writes to it. The next client in the slot goes on with the same counts.
struct chaos_thread {
    _Atomic uint64_t since_ns; // CLOCK_MONOTONIC when it began an operation that may wait; 0: idle
    _Atomic uint32_t op;       // the operation, enum chaos_op
    _Atomic uint32_t page;     // its page
    _Atomic uint64_t ops[CHAOS_OPS];
    _Atomic uint64_t checked; // pages of which every byte was compared
    struct bench_hist wait;   // of touches, writes and removals
};

struct chaos_slot {
    struct chaos_thread thread[CHAOS_THREADS];
    _Atomic uint64_t wrong;                 // pages with wrong bytes
    _Atomic uint64_t attached[CHAOS_KINDS]; // VMs of each kind
};

struct chaos_board {
    _Atomic uint32_t stop; // 1: clients are to end soon
    struct chaos_slot slot[];
};

#endif
