// SPDX-License-Identifier: Apache-2.0
//
// What the driver of a chaos run does to the service, one thing at a time, and how it waits: while
// it waits it looks at the clients and at the log. Only the driver calls these.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_ACT_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_ACT_H

#include "tests/resilience/chaos.h"

typedef bool chaos_condition(struct chaos_run *run);

// Returns a random number below `sides`.
uint64_t chaos_dice(struct chaos_run *run, uint64_t sides);
// Reads the new lines of the log, reaps children, and looks at every client.
void chaos_look(struct chaos_run *run);
// Returns true if nothing was wrong so far and no signal asked the run to end.
bool chaos_goes_on(const struct chaos_run *run);
// Lets everything run for so many microseconds.
void chaos_go_on(struct chaos_run *run, uint64_t us);
// Waits until `condition` is true. Returns false if the run is to end, or after 30 s: then it
// prints that it waited for `what`, and the run has failed.
bool chaos_await(struct chaos_run *run, chaos_condition *condition, const char *what);
chaos_condition chaos_serves;   // an engine serves, and the driver has not killed it
chaos_condition chaos_recorded; // no `faultline record` runs
chaos_condition chaos_drained;  // no `faultline drain` runs
chaos_condition chaos_upgraded; // no `faultline upgrade` runs
// Waits until no upgrade runs, and then until an engine serves.
bool chaos_rests(struct chaos_run *run);

void chaos_kill_engine(struct chaos_run *run);
void chaos_kill_standby(struct chaos_run *run);
void chaos_kill_client(struct chaos_run *run);
// In half of the cases it waits until the upgrade has ended. engine: another executable, or NULL.
void chaos_upgrade(struct chaos_run *run, const char *engine);
// Restarts the keeper, in a way that is chosen at random.
void chaos_restart(struct chaos_run *run);
// From now on the keeper runs under a service manager.
void chaos_move_under_manager(struct chaos_run *run);

// Has engines die at this point until it was often enough, or for 20 s.
void chaos_act_at(struct chaos_run *run, struct chaos_point *point);
// Splits NAME,NAME... and returns how many names there are.
uint32_t chaos_split_points(const char *list, struct chaos_point points[CHAOS_POINTS]);

#endif
