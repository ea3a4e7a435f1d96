// SPDX-License-Identifier: Apache-2.0
//
// The commands of an operator who works with an image while its VMs run, one after the other, over
// and over: record (the driver kills some of these), lay out, make a template, complete it. Only
// the driver calls these.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_CHORES_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_CHORES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/resilience/chaos_service.h"

enum chaos_chore {
    CHAOS_TEMPLATE,
    CHAOS_RECORD_KILLED, // by SIGKILL; CHAOS_CANCEL takes back what it leaves
    CHAOS_CANCEL,
    CHAOS_RECORD,
    CHAOS_TRACE, // reads the trace: it must have no page that no VM touched
    CHAOS_COMPLETE,
    CHAOS_OPTIMIZE, // replaces the image, so that its template is of the image before
    CHAOS_CHORES
};

struct chaos_chores {
    const struct chaos_service *service;
    uint32_t touched; // VMs touch pages below this number only
    uint64_t random;
    enum chaos_chore next;
    pid_t pid; // of the one that runs; 0: none
    enum chaos_chore running;
    uint64_t began_ns;
    uint64_t kill_ns; // when it is to be killed; 0: it is not
    bool on;
    bool bad; // a chore ended in a way that is wrong
    uint32_t done[CHAOS_CHORES];
    uint32_t failed[CHAOS_CHORES]; // because no engine answered
};

void chaos_chores_start(struct chaos_chores *chores);
// Reaps the chore that runs, or starts the next. Call it every few milliseconds.
void chaos_chores_look(struct chaos_chores *chores);
// Kills the chore that runs, if one does.
void chaos_chores_stop(struct chaos_chores *chores);

#endif
