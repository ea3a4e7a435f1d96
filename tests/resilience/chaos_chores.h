// SPDX-License-Identifier: Apache-2.0
//
// What an operator does with an image while its VMs run, one command after the other, over and
// over: records its VMs (some of these are killed), lays it out anew, keeps it as a template,
// completes that. Only the run's own thread.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_CHORES_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_CHORES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/resilience/chaos_service.h"

enum chaos_chore {
    CHAOS_TEMPLATE,
    CHAOS_RECORD_KILLED, // by SIGKILL; what it leaves behind is taken back
    CHAOS_CANCEL,
    CHAOS_RECORD,
    CHAOS_TRACE, // is looked at: it has no page that nobody touched
    CHAOS_COMPLETE,
    CHAOS_OPTIMIZE, // the image is replaced, and its template is of the one before
    CHAOS_CHORES
};

struct chaos_chores {
    const struct chaos_service *service;
    uint32_t touched;      // pages of the image from this one on are touched by nobody
    uint64_t random;       //
    enum chaos_chore next; //
    pid_t pid;             // of the one that runs; 0: none
    enum chaos_chore running;
    uint64_t began_ns;
    uint64_t kill_ns; // 0: it is not killed
    bool on;
    bool bad; // one must not have ended as it did
    uint32_t done[CHAOS_CHORES];
    uint32_t failed[CHAOS_CHORES]; // as nobody was there to ask
};

void chaos_chores_start(struct chaos_chores *chores);
// Reaps, starts the next. To be called every few milliseconds.
void chaos_chores_look(struct chaos_chores *chores);
// Kills the one that runs.
void chaos_chores_stop(struct chaos_chores *chores);

#endif
