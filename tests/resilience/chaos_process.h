// SPDX-License-Identifier: Apache-2.0
//
// Processes of a run, such that none outlives it: a guardian becomes the parent of whatever is
// orphaned (an engine whose keeper was killed) and ends it when the run has ended in any way.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_PROCESS_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

// Root, and userfaultfd. If not, says so; such a run ends with CHAOS_SKIPPED.
bool chaos_can_run(void);
enum { CHAOS_SKIPPED = 77 };

// Runs run(arg) in a child and waits. SIGINT and SIGTERM reach the child as SIGTERM, once. Its exit
// status, or 1 if a signal ended it. Processes that it left are killed, and *ret_left is how many.
// Call it in a process that has no other children.
int chaos_guard(int (*run)(void *arg), void *arg, unsigned *ret_left);
// In the child: whether it was told to end.
bool chaos_told_to_end(void);

// Forks and execs argv[0] with its output appended to log_fd; dies with the caller.
// The pid or a negative errno.
pid_t chaos_spawn(const char *const *argv, int log_fd);

// Processes that descend from the caller, children of children too. Returns how many there are; at
// most `most` are put in ret_pids. A zombie counts until it is reaped.
unsigned chaos_descendants(pid_t *ret_pids, unsigned most);

#endif
