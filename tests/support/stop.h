// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_TESTS_SUPPORT_STOP_H
#define FAULTLINE_TESTS_SUPPORT_STOP_H

#include <stdbool.h>
#include <sys/types.h>

// SIGSTOP, and waits until each thread has stopped: kill() returns before, and a thread on another
// processor runs on for a moment. One that sleeps in the kernel and cannot be stopped there (D)
// will not run again before it is stopped. False if that does not happen in time.
bool process_stop(pid_t pid);

#endif
