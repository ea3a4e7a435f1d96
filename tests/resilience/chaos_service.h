// SPDX-License-Identifier: Apache-2.0
//
// The `faultline serve` of a run: its store, its keeper, its engines as its log tells of them, and
// what is done to them. One thread. A call that fails says why on stderr.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_SERVICE_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_SERVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/support/temp.h"

struct notify_peer;

enum { CHAOS_PATH = 2 * TEST_PATH, CHAOS_ENGINES = 8192, CHAOS_ARGS = 16 };

// How long an upgraded engine must live before the upgrade is over.
#define CHAOS_TRIAL_MS "300"

struct chaos_engine {
    pid_t pid;
    int pidfd;   // -1 once it has ended
    bool killed; // by us
    bool reaped; // by us: its keeper was killed
};

struct chaos_service {
    const char *program; // `faultline`
    char store[CHAOS_PATH];
    char sockets[CHAOS_PATH];
    char socket[CHAOS_PATH];   // where a VM connects
    char template[CHAOS_PATH]; // the same, for clones of a template
    char control[CHAOS_PATH];
    char log[CHAOS_PATH];
    int log_fd;      // appends
    int follow_fd;   // reads
    char line[2048]; // the part of a line that has come
    size_t line_used;
    const char *args[CHAOS_ARGS]; // of `faultline serve`
    pid_t keeper;                 // 0: none runs. Under a service manager: as it was last seen.
    struct notify_peer *peer;

    pid_t serving;          // the engine; 0: none, or it was killed
    unsigned served;        // how often one was said to serve, to a new keeper too
    unsigned replayed;      // working sets that were streamed in to their end
    unsigned draining;      // engines that began to
    unsigned execed;        // keepers that took over from themselves
    unsigned died_armed;    // at the point of their own that they were told to
    bool scarce;            // what a new engine needs is not to be had: it may end before it serves
    unsigned stillborn;     // those that did
    unsigned died_unasked;  // that nobody had killed
    char token[CHAOS_PATH]; // who removes this file may die at its point
    bool armed;
    unsigned engines;
    struct chaos_engine engine[CHAOS_ENGINES];
};

// Makes the memory file, packs it and opens the log (NULL: one of its own), all else below `temp`.
// program: an absolute path.
bool chaos_service_prepare(struct chaos_service *service, const struct temp *temp,
                           const char *program, uint64_t seed, uint32_t pages, const char *log);
// Reads the log on.
void chaos_service_follow(struct chaos_service *service);
// Reaps what of it has ended and is a child of ours. False: the keeper is gone, unasked.
bool chaos_service_reap(struct chaos_service *service);

// A keeper, as a process of ours; it ends with us. It serves when `served` rises.
bool chaos_service_start(struct chaos_service *service);
// A keeper under a service manager that keeps descriptors; returns when it is ready.
bool chaos_service_start_managed(struct chaos_service *service);
// A signal that ends the engine that serves. False: none does.
bool chaos_service_kill_engine(struct chaos_service *service, int number);
// SIGKILL to one that waits to be needed. False: there is none.
bool chaos_service_kill_standby(struct chaos_service *service);
// SIGKILL, and reaps. Not under a service manager.
void chaos_service_kill_keeper(struct chaos_service *service);
// The service manager's restart: it tells the keeper to leave, or (killed) finds it dead.
bool chaos_service_restart_managed(struct chaos_service *service, bool killed);
// Starts `faultline upgrade`: its pid, to be reaped by the caller. engine may be NULL.
pid_t chaos_service_upgrade(const struct chaos_service *service, const char *engine, bool keeper);
// Starts `faultline record`, of VMs that come from now on: its pid, likewise. Those after them get
// what these have touched ahead of their touches.
pid_t chaos_service_record(const struct chaos_service *service, const char *runs,
                           const char *window);
// From now on engines that come to this point, NAME[:COUNT], may kill themselves
// (engine/base/crash_point.h). To be called before the keeper is started; an empty point takes it
// back.
void chaos_service_set_point(struct chaos_service *service, const char *point);
// One of them does so.
bool chaos_service_arm(struct chaos_service *service);
// None does; false: one is about to.
bool chaos_service_disarm(struct chaos_service *service);
// Starts `faultline drain --populate`: its pid, likewise.
pid_t chaos_service_drain(const struct chaos_service *service);
// From the status.
struct chaos_status {
    long long vms;     // -1: nobody answers
    long long lacks;   // things that the server lacks and does without
    long long waiting; // pages that were asked for and are not there; VMs whose replay runs
    long long memory;  // bytes that the engine has allocated, what its cache holds aside
};
struct chaos_status chaos_service_status(const struct chaos_service *service);

// SIGTERM; the keeper's exit status, 128 + signal, or -1 if it had to be killed.
int chaos_service_stop(struct chaos_service *service);
// Kills all of it. Only when no VM is left.
void chaos_service_kill(struct chaos_service *service);

#endif
