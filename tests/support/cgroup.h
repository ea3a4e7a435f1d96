// SPDX-License-Identifier: Apache-2.0
//
// A memory cgroup with a limit, of whichever version has the controller here. One a test; for
// Criterion. A process of its own removes it whatever becomes of the test.
#ifndef FAULTLINE_TESTS_SUPPORT_CGROUP_H
#define FAULTLINE_TESTS_SUPPORT_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

// Skips the test without memory cgroups (fails it where CI=true). `bytes`: its limit.
void cgroup_make(uint64_t bytes);
// In a client: it is in the cgroup from now on. False if it cannot be.
bool cgroup_enter(void);
// Bytes that are charged to it.
uint64_t cgroup_used(void);
// The most that ever were.
uint64_t cgroup_peak(void);
// When its processes have ended; nothing to do without one.
void cgroup_remove(void);

// Skips the test, loudly, unless there is what it needs; fails it where CI=true.
void need(bool has, const char *what);

#endif
