// SPDX-License-Identifier: Apache-2.0
//
// What the clients of a chaos run say about themselves, in memory shared by all of its processes.
// The driver reads it while they run: a client that hangs cannot say so any more.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_BOARD_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_BOARD_H

#include <stdatomic.h>
#include <stdint.h>

#include "bench/common/histogram.h"

enum { CHAOS_THREADS = 2 };

enum chaos_kind { CHAOS_SMALL, CHAOS_HUGE, CHAOS_CLONE, CHAOS_KINDS };

enum chaos_op { CHAOS_HANDSHAKE, CHAOS_TOUCH, CHAOS_WRITE, CHAOS_REMOVE, CHAOS_OPS };

// One writer: the thread. It outlives the client: the next one in the slot goes on with it.
struct chaos_thread {
    _Atomic uint64_t
        since_ns;          // CLOCK_MONOTONIC when it began what may wait for the engine; 0: idle
    _Atomic uint32_t op;   // what that is
    _Atomic uint32_t page; //
    _Atomic uint64_t ops[CHAOS_OPS];
    _Atomic uint64_t checked; // pages whose every byte was compared
    struct bench_hist wait;   // of touches, writes and removals
};

struct chaos_slot {
    struct chaos_thread thread[CHAOS_THREADS];
    _Atomic uint64_t wrong;                 // pages with wrong bytes
    _Atomic uint64_t attached[CHAOS_KINDS]; // VMs of each kind
};

struct chaos_board {
    _Atomic uint32_t stop; // clients come to their end early
    struct chaos_slot slot[];
};

#endif
