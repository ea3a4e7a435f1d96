// SPDX-License-Identifier: Apache-2.0
//
// The clients of a chaos run as its driver sees them. Each slot has a process; when it has ended
// the next one starts there. The driver watches how long each thread waits. Only the driver calls
// these.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_CROWD_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_CROWD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/resilience/chaos_board.h"
#include "tests/resilience/chaos_client.h"

struct chaos_member {
    pid_t pid;   // 0: no process
    bool killed; // by the driver
};

struct chaos_crowd {
    struct chaos_plan plan;
    uint32_t slots;
    uint64_t limit_ns; // no thread may wait longer
    bool closed;       // no more clients are started
    bool held;         // no client is started for a while
    struct chaos_board *board;
    struct chaos_member *member;

    uint64_t started;
    uint64_t finished; // ended by themselves, and everything was right
    uint64_t killed;
    uint64_t killed_waiting; // of those: in the middle of a wait for the engine
    uint64_t wrong;          // pages with wrong bytes
    uint64_t lost;           // clients that ended in any other way
    uint64_t waited;         // waits longer than the limit
    uint64_t longest_ns;     // the longest wait, including waits that go on
};

// Starts no client yet. Each client gets a seed made from plan->seed. Returns 0 or -ENOMEM.
int chaos_crowd_make(struct chaos_crowd *ret_crowd, const struct chaos_plan *plan, uint32_t slots,
                     uint64_t limit_ns);
// Reaps clients, starts others, and looks at every thread. Call it every few milliseconds.
void chaos_crowd_look(struct chaos_crowd *crowd);
// Kills a client, preferably one that waits at this moment. Returns false if no client runs.
bool chaos_crowd_kill_one(struct chaos_crowd *crowd, uint64_t random);
// Starts no more clients. With `stop` it tells those that run to end.
void chaos_crowd_close(struct chaos_crowd *crowd, bool stop);
// Starts clients again.
void chaos_crowd_open(struct chaos_crowd *crowd);
// Returns true if a client is in the middle of its handshake, or has not begun it.
bool chaos_crowd_shakes_hands(const struct chaos_crowd *crowd);
uint32_t chaos_crowd_count(const struct chaos_crowd *crowd);
// Kills all clients and reaps them.
void chaos_crowd_kill(struct chaos_crowd *crowd);
// Returns true if nothing went wrong so far.
bool chaos_crowd_good(const struct chaos_crowd *crowd);

// Returns the kind of the VMs in a slot.
enum chaos_kind chaos_crowd_kind(const struct chaos_plan *plan, uint32_t number);

// Sums over all slots.
uint64_t chaos_crowd_attached(const struct chaos_crowd *crowd, enum chaos_kind kind);
uint64_t chaos_crowd_ops(const struct chaos_crowd *crowd, enum chaos_op op);
uint64_t chaos_crowd_checked(const struct chaos_crowd *crowd);
void chaos_crowd_wait(const struct chaos_crowd *crowd, struct bench_hist *ret_wait);

#endif
