// SPDX-License-Identifier: Apache-2.0
//
// What a chaos run takes away from the service for a while, one thing at a time, and gives back:
// the free huge pages, the store, descriptors. Besides, some VMs live at a memory limit all the
// time, and swap. Only the driver calls these.
//
// States: OFF, until the next shortage. QUIET: no VM starts, until the service knows all that have
// started. ON: the thing is taken away. OVER: it was given back; until the service lacks nothing no
// VM starts. Then OFF again. chaos_shortage.c's go_on() is the only place that moves from state to
// state, but for chaos_shortages_stop().
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_SHORTAGE_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_SHORTAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/resilience/chaos_crowd.h"
#include "tests/resilience/chaos_service.h"

enum chaos_shortage {
    CHAOS_NO_HUGE_PAGES,
    CHAOS_NO_STORE,
    CHAOS_NO_DESCRIPTORS,
    CHAOS_SHORTAGE_KINDS
};

enum chaos_shortage_state {
    CHAOS_SHORTAGE_OFF,
    CHAOS_SHORTAGE_QUIET,
    CHAOS_SHORTAGE_ON,
    CHAOS_SHORTAGE_OVER
};

enum { CHAOS_TAKEN_PAGES = 4096, CHAOS_LIMITED_PROCESSES = 64 };

struct chaos_shortages {
    struct chaos_service *service;
    struct chaos_crowd *crowd;
    uint64_t random;
    bool huge; // some VMs have 2 MiB pages
    bool on;   // there are to be shortages

    enum chaos_shortage_state state;
    enum chaos_shortage kind;
    uint64_t next_ns; // when the state ends

    uint32_t taken; // huge pages
    void *page[CHAOS_TAKEN_PAGES];
    uint32_t limited; // processes with few descriptors
    struct {
        pid_t pid;
        uint64_t soft, hard; // the limits before
    } process[CHAOS_LIMITED_PROCESSES];

    uint32_t done[CHAOS_SHORTAGE_KINDS];
    uint32_t taken_most; // huge pages that were taken at one time
    bool bad;            // taking or giving back has failed
};

// Moves the run into a mount namespace of its own, and makes the store's directory a mount that can
// be taken away. Call it before the service is started. Returns 0 or a negative errno.
int chaos_shortages_prepare(const struct chaos_service *service);
void chaos_shortages_start(struct chaos_shortages *shortages);
// Call it every few milliseconds.
void chaos_shortages_look(struct chaos_shortages *shortages);
// Gives everything back, and takes nothing more.
void chaos_shortages_stop(struct chaos_shortages *shortages);

#endif
