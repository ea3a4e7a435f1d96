// SPDX-License-Identifier: Apache-2.0
//
// A `faultline checkpoint --external` of the storm (capture_storm.c), which is its orchestrator: it
// reads the events, pauses the VM and says so. Waits have the deadline of all tests.
#ifndef FAULTLINE_TESTS_STRESS_STORM_COMMAND_H
#define FAULTLINE_TESTS_STRESS_STORM_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct storm_command {
    pid_t pid;
    int in;          // its standard input
    int out;         // its output, which ends with the process
    char text[8192]; // all that it has said
    size_t used;
};

// False without a process. `flags` is NULL-terminated.
bool storm_command_begin(struct storm_command *command, const char *control, const char *name,
                         uint64_t vm, const char *const *flags);
// Reads until it has said this. False: it says no more, or not in time.
bool storm_command_says(struct storm_command *command, const char *words);
// That the VM is paused.
bool storm_command_answer(struct storm_command *command);
// Waits for its end, and leaves its number to it (storm_command_reap): 0, 1, ..., 128 + signal; -1:
// it does not end, and was killed.
int storm_command_end(struct storm_command *command);
// When nobody sends it a signal any more.
void storm_command_reap(struct storm_command *command);

#endif
