// SPDX-License-Identifier: Apache-2.0
//
// The clients of a chaos run, seen by its driver: a process in each slot, another one when it has
// ended, and a watch over how long each of their threads waits. One thread.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_CROWD_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_CROWD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/resilience/chaos_board.h"
#include "tests/resilience/chaos_client.h"

struct chaos_member {
    pid_t pid;   // 0: none
    bool killed; // by us
};

struct chaos_crowd {
    struct chaos_plan plan;
    uint32_t slots;
    uint64_t limit_ns; // no thread may wait longer
    bool closed;       // no more clients are started
    bool held;         // nor for the time being
    struct chaos_board *board;
    struct chaos_member *member;

    uint64_t started;
    uint64_t finished; // came to their end, everything was right
    uint64_t killed;
    uint64_t killed_waiting; // of those: while they waited for the engine
    uint64_t wrong;          // pages with wrong bytes
    uint64_t lost;           // clients that ended in any other way
    uint64_t waited;         // waits longer than the limit
    uint64_t longest_ns;     // the longest wait, one that goes on included
};

// Nothing runs yet. plan.seed: each client gets another one made from it. 0 or -ENOMEM.
int chaos_crowd_make(struct chaos_crowd *ret_crowd, const struct chaos_plan *plan, uint32_t slots,
                     uint64_t limit_ns);
// Reaps, starts, looks at every thread. To be called every few milliseconds.
void chaos_crowd_look(struct chaos_crowd *crowd);
// SIGKILL to one, if there is one to one that waits at this moment. False: there is none at all.
bool chaos_crowd_kill_one(struct chaos_crowd *crowd, uint64_t random);
// Starts no more; with `stop` those that run are told to come to their end.
void chaos_crowd_close(struct chaos_crowd *crowd, bool stop);
// Takes that back.
void chaos_crowd_open(struct chaos_crowd *crowd);
// A client is in the middle of its handshake.
bool chaos_crowd_shakes_hands(const struct chaos_crowd *crowd);
uint32_t chaos_crowd_count(const struct chaos_crowd *crowd);
// SIGKILL to all, and reaps.
void chaos_crowd_kill(struct chaos_crowd *crowd);
// Nothing went wrong so far.
bool chaos_crowd_good(const struct chaos_crowd *crowd);

// What the VMs in a slot are.
enum chaos_kind chaos_crowd_kind(const struct chaos_plan *plan, uint32_t number);

// Sums over all slots.
uint64_t chaos_crowd_attached(const struct chaos_crowd *crowd, enum chaos_kind kind);
uint64_t chaos_crowd_ops(const struct chaos_crowd *crowd, enum chaos_op op);
uint64_t chaos_crowd_checked(const struct chaos_crowd *crowd);
void chaos_crowd_wait(const struct chaos_crowd *crowd, struct bench_hist *ret_wait);

#endif
