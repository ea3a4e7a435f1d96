// SPDX-License-Identifier: Apache-2.0
//
// What the driver of a chaos run does, one thing at a time, and how it waits: the clients and the
// log are looked at all the while. Only the run's own thread.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_ACT_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_ACT_H

#include "tests/resilience/chaos.h"

typedef bool chaos_condition(struct chaos_run *run);

uint64_t chaos_dice(struct chaos_run *run, uint64_t sides);
// Reads the log on, reaps, looks at every client.
void chaos_look(struct chaos_run *run);
// Nothing was wrong so far, and nobody has told us to end.
bool chaos_goes_on(const struct chaos_run *run);
void chaos_go_on(struct chaos_run *run, uint64_t us);
// False if it is in vain: the run has failed then, and was told why, or is to end.
bool chaos_await(struct chaos_run *run, chaos_condition *condition, const char *what);
chaos_condition chaos_serves;   // an engine that nobody has killed
chaos_condition chaos_recorded; // no `faultline record` runs
chaos_condition chaos_drained;  // no `faultline drain` runs
chaos_condition chaos_upgraded; // no `faultline upgrade` runs
// Both, one after the other.
bool chaos_rests(struct chaos_run *run);

void chaos_kill_engine(struct chaos_run *run);
void chaos_kill_standby(struct chaos_run *run);
void chaos_kill_client(struct chaos_run *run);
// Half of the time it is left alone until it has ended. engine: another executable, or NULL.
void chaos_upgrade(struct chaos_run *run, const char *engine);
// Of the keeper, one way or another.
void chaos_restart(struct chaos_run *run);
void chaos_move_under_manager(struct chaos_run *run);

// Until engines have died often enough at this point, or it takes too long.
void chaos_act_at(struct chaos_run *run, struct chaos_point *point);
uint32_t chaos_split_points(const char *list, struct chaos_point points[CHAOS_POINTS]);

#endif
