// SPDX-License-Identifier: Apache-2.0
//
// How long VMs wait when something happens to the engine or the keeper that serves them.
#ifndef FAULTLINE_TESTS_RESILIENCE_STALL_H
#define FAULTLINE_TESTS_RESILIENCE_STALL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/resilience/chaos_service.h"
#include "tests/resilience/stall_client.h"

enum stall_kind {
    STALL_NONE,        // nothing happens, which shows what the machine does by itself
    STALL_ENGINE_KILL, // SIGKILL
    STALL_UPGRADE,     // `faultline upgrade`
    STALL_KEEPER_EXEC, // `faultline upgrade --keeper`
    STALL_KEEPER_KILL, // SIGKILL of the keeper, and another `faultline serve`
    // Every VM has just attached, and no read of its replay comes back.
    STALL_AHEAD_HANGS, // nothing else happens
    STALL_AHEAD_KILL,  // SIGKILL of the engine
    STALL_OWN_KINDS,
    // Under a service manager with an fd store.
    STALL_LEAVE = STALL_OWN_KINDS, // `systemctl restart`
    STALL_ALL_KILLED,              // SIGKILL of the keeper; the manager then kills the engine, too
    STALL_KINDS
};

struct stall_options {
    const char *program; // absolute
    const char *out;     // JSON; NULL: none
    const char *log;     // of the service; NULL: one that is removed
    uint64_t seed;
    uint32_t vms;
    uint32_t events; // of each kind
    uint32_t rate;   // touches a second, of all VMs together
    uint32_t pages;
    uint32_t quiet;    // percent of one CPU that may be busy before an event
    bool managed;      // the last two kinds too
    const char *hang;  // the library that makes read-ahead hang; NULL: there is no trace
    const char *kinds; // KEY,KEY...: only these; NULL: all
};

struct stall_result {
    uint32_t events;
    uint32_t disturbed;        // events before which the machine did not get quiet
    uint64_t *longest_ns;      // of each event
    uint64_t *window_ns;       // how long its window was open
    struct bench_hist touches; // of all events
};

struct stall_run {
    const struct stall_options *options;
    struct chaos_service service;
    struct stall_board *board;
    pid_t *pid; // of the clients; 0: not running
    uint64_t random;
    bool failed;
    char gate[CHAOS_PATH]; // while this file exists read-ahead hangs
    struct stall_result result[STALL_KINDS];
};

// Starts a service and makes all events of the kinds from `first` to before `end`, in turn.
void stall_drive(struct stall_run *run, enum stall_kind first, enum stall_kind end);
// Prepares the service so that its read-ahead can hang. Call it before stall_drive().
void stall_prepare_hanging(struct stall_run *run, const struct temp *temp);
// Gives the image a trace of all its pages. Prints why and returns false if that fails.
bool stall_record(struct stall_run *run);
// Makes read-ahead hang. Ends that, and returns false if no read was held up.
bool stall_shut(struct stall_run *run);
bool stall_open(struct stall_run *run);
// The name of a kind in options and figures.
extern const char *const stall_key[STALL_KINDS];
void stall_print(const struct stall_run *run);
bool stall_write(const struct stall_run *run, const char *path);

#endif
