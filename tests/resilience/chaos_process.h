// SPDX-License-Identifier: Apache-2.0
//
// Makes sure that no process outlives a run. A guardian becomes the parent of every orphan, such as
// an engine whose keeper was killed, and kills it when the run has ended, in whatever way.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_PROCESS_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

// Returns true if the process is root's and userfaultfd works. If not it prints so, and the program
// exits with CHAOS_SKIPPED.
bool chaos_can_run(void);
enum { CHAOS_SKIPPED = 77 };

// Runs run(arg) in a child and waits for it. Passes SIGINT and SIGTERM on to the child as SIGTERM.
// Returns the child's exit status, or 1 if a signal ended it. Kills the processes that it left;
// *ret_left is their number. The caller must have no other children.
int chaos_guard(int (*run)(void *arg), void *arg, unsigned *ret_left);
// Returns true if a signal asked the child to end.
bool chaos_told_to_end(void);

// Starts argv[0] with its output appended to log_fd. It dies with the caller. Returns its pid or a
// negative errno.
pid_t chaos_spawn(const char *const *argv, int log_fd);

// Finds the processes that descend from the caller, directly or not. Returns how many there are,
// and puts `most` of them in ret_pids at most. A zombie counts until it is reaped.
unsigned chaos_descendants(pid_t *ret_pids, unsigned most);

#endif
