// SPDX-License-Identifier: Apache-2.0
//
// The chaos run: what it is asked to do, what it does, and what came of it.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/resilience/chaos_chores.h"
#include "tests/resilience/chaos_crowd.h"
#include "tests/resilience/chaos_limit.h"
#include "tests/resilience/chaos_service.h"
#include "tests/resilience/chaos_shortage.h"

struct chaos_options {
    const char *program; // `faultline`, absolute
    const char *out;     // JSON; NULL: none
    const char *log;     // of the service; NULL: one that is removed
    const char *points;  // NAME,NAME...: engines die at these instead; NULL: no points
    uint64_t seed;
    uint64_t limit_ms; // no wait may be longer
    uint32_t clients;
    uint32_t kills;
    uint32_t upgrades;
    uint32_t restarts; // of the keeper
    uint32_t every_ms; // mean time between two events
    uint32_t hits;     // so often at each point
    uint32_t seconds;  // after the last event
    uint32_t pause_us;
    uint32_t pages;
    bool managed;   // half of the run under a service manager
    bool mixed;     // VMs of all kinds, and an operator at work
    bool shortages; // the driver takes things away from the service, and gives them back
};

enum { CHAOS_HUGE_PAGES = 512 }; // pages of 4 KiB in one of 2 MiB

enum chaos_restart { CHAOS_KILLED, CHAOS_EXECED, CHAOS_LEFT, CHAOS_FOUND_DEAD, CHAOS_RESTARTS };

enum { CHAOS_POINTS = 64, CHAOS_POINT_NAME = 48 };

struct chaos_point {
    char name[CHAOS_POINT_NAME];
    uint32_t hits;
};

struct chaos_done {
    uint32_t kills;
    uint32_t cores; // of those: with a core dump
    uint32_t standby_kills;
    uint32_t client_kills;
    uint32_t upgrades;
    uint32_t upgrades_disturbed; // something else was done to the service meanwhile
    uint32_t upgrades_failed;    // those included
    uint32_t restarts[CHAOS_RESTARTS];
    uint32_t points;
    struct chaos_point point[CHAOS_POINTS];
    uint64_t memory; // bytes of the engine when it had no VM any more
    uint32_t let_go; // VMs that lived on when the service had ended
    uint32_t left;   // processes
    bool vms_left;   // the engine counted VMs when no client was left
    int stop_status; // of the keeper at the end
    bool over;       // the run came to its end
    uint64_t duration_ns;
};

struct chaos_run {
    const struct chaos_options *options;
    struct chaos_service service;
    struct chaos_crowd crowd;
    struct chaos_chores chores;
    struct chaos_shortages shortages;
    struct chaos_limit *limit; // the memory limit of some VMs; NULL: no limit
    uint64_t swapped_most;     // the most pages of these VMs on swap that the driver has seen
    struct chaos_done done;
    uint64_t random;
    uint64_t asked_ns; // when the status was asked for
    pid_t upgrade;     // `faultline upgrade` that runs; 0: none
    bool of_keeper;    // it has the option --keeper
    bool upgraded;     // the last one has succeeded
    bool disturbed;    // something else happened to the service meanwhile
    pid_t record;      // `faultline record` that runs; 0: none
    pid_t drain;       // `faultline drain` that runs; 0: none
    bool drained;      // it has succeeded
    bool recorded;     // the image has a trace
    bool failed;       // something could not be done
};

// Returns what bench_options_parse() returns.
int chaos_options_parse(int argc, char **argv, struct chaos_options *ret_options);

// Does the whole run, from the first keeper to the end of the last process. `service` is prepared.
void chaos_drive(struct chaos_run *run);
// Returns the longest wait of any thread, including waits that go on.
uint64_t chaos_longest_ns(const struct chaos_run *run);
// Returns true if nothing happened that must not happen.
bool chaos_good(const struct chaos_run *run);
// Prints the table; writes the JSON. Prints why and returns false if that fails.
void chaos_print(const struct chaos_run *run);
bool chaos_write(const struct chaos_run *run, const char *path);

#endif
