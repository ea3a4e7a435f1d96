// SPDX-License-Identifier: Apache-2.0
//
// The `faultline serve` of a run: its store, its keeper, the engines that its log names, and what
// the driver does to them. Only the driver calls these. A call that fails prints why on stderr.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_SERVICE_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_SERVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/support/temp.h"

struct notify_peer;

enum { CHAOS_PATH = 2 * TEST_PATH, CHAOS_ENGINES = 8192, CHAOS_ARGS = 16 };

// How long an upgraded engine must live until the upgrade counts as good.
#define CHAOS_TRIAL_MS "300"

struct chaos_engine {
    pid_t pid;
    int pidfd;   // -1: it has ended
    bool killed; // by the driver
    bool reaped; // by the driver, as its keeper was killed
};

struct chaos_service {
    const char *program; // `faultline`
    char store[CHAOS_PATH];
    char sockets[CHAOS_PATH];
    char socket[CHAOS_PATH];   // VMs connect here
    char template[CHAOS_PATH]; // clones of a template connect here
    char control[CHAOS_PATH];
    char log[CHAOS_PATH];
    int log_fd;      // to append to the log
    int follow_fd;   // to read it
    char line[2048]; // the line that is not complete yet
    size_t line_used;
    const char *args[CHAOS_ARGS]; // of `faultline serve`
    pid_t keeper;                 // 0: no keeper runs
    struct notify_peer *peer;     // the service manager; NULL: the driver started the keeper itself

    pid_t serving;          // the engine that serves; 0: there is none, or the driver killed it
    unsigned served;        // how often the log said that an engine serves
    unsigned replayed;      // replays that came to their end
    unsigned draining;      // engines that began to drain
    unsigned execed;        // keepers that replaced themselves by exec
    unsigned died_armed;    // engines that died at a test point
    bool scarce;            // a shortage: a new engine may end before it serves
    unsigned stillborn;     // engines that ended so
    unsigned died_unasked;  // engines that died for no reason that the driver knows
    char token[CHAOS_PATH]; // the engine that removes this file may die at its point
    bool armed;             // the file was made, and no engine is known to have removed it
    unsigned engines;
    struct chaos_engine engine[CHAOS_ENGINES];
};

// Makes the memory file, packs it and opens the log. `log` NULL: a log below `temp`, where all else
// is. `program` is an absolute path.
bool chaos_service_prepare(struct chaos_service *service, const struct temp *temp,
                           const char *program, uint64_t seed, uint32_t pages, const char *log);
// Reads the new lines of the log.
void chaos_service_follow(struct chaos_service *service);
// Reaps the children that have ended. Returns false if the keeper has ended by itself.
bool chaos_service_reap(struct chaos_service *service);

// Starts a keeper as a child of the driver, which ends with it. It serves when `served` rises.
bool chaos_service_start(struct chaos_service *service);
// Starts a keeper under a service manager with an fd store. Returns when it is ready.
bool chaos_service_start_managed(struct chaos_service *service);
// Ends the engine that serves by a signal. Returns false if no engine serves.
bool chaos_service_kill_engine(struct chaos_service *service, int number);
// Kills the engine that stands by. Returns false if there is none.
bool chaos_service_kill_standby(struct chaos_service *service);
// Kills the keeper and reaps it. Does nothing under a service manager.
void chaos_service_kill_keeper(struct chaos_service *service);
// Restarts the keeper as a service manager does: it tells the keeper to leave, or with `killed`
// finds it dead.
bool chaos_service_restart_managed(struct chaos_service *service, bool killed);
// Starts `faultline upgrade` and returns its pid, which the caller reaps. `engine` may be NULL.
pid_t chaos_service_upgrade(const struct chaos_service *service, const char *engine, bool keeper);
// Starts `faultline record` of the next VMs and returns its pid, likewise. Later VMs get the pages
// of these ahead of their touches.
pid_t chaos_service_record(const struct chaos_service *service, const char *runs,
                           const char *window);
// Names the point at which engines may kill themselves, NAME[:COUNT] (engine/base/crash_point.h).
// Call it before the keeper is started.
void chaos_service_set_point(struct chaos_service *service, const char *point);
// Makes the token: the next engine that comes to the point dies there.
bool chaos_service_arm(struct chaos_service *service);
// Takes the token back. Returns false if an engine has taken it and is about to die.
bool chaos_service_disarm(struct chaos_service *service);
// Starts `faultline drain --populate` and returns its pid, likewise.
pid_t chaos_service_drain(const struct chaos_service *service);
// What `faultline status` says.
struct chaos_status {
    long long vms;     // -1: no engine answers
    long long lacks;   // things that the server must do without
    long long waiting; // faults that wait, and replays that run
    long long memory;  // bytes that the engine has allocated, without its cache
};
struct chaos_status chaos_service_status(const struct chaos_service *service);

// Stops the keeper by SIGTERM. Returns its exit status, 128 + signal, or -1 if it had to be killed.
int chaos_service_stop(struct chaos_service *service);
// Kills the keeper and all engines. No VM may be left.
void chaos_service_kill(struct chaos_service *service);

#endif
