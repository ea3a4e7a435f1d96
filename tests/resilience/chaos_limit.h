// SPDX-License-Identifier: Apache-2.0
//
// A memory group (cgroup v2, or v1 where the memory controller is there) with a limit below what
// its processes use, and a file to swap to. What is made here must be taken away by the same
// process or by one that knows the same directory: chaos_limit_remove() takes away what it finds.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_LIMIT_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_LIMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { CHAOS_LIMIT_PATH = 1200 };

struct chaos_limit {
    char group[CHAOS_LIMIT_PATH];
    char procs[CHAOS_LIMIT_PATH + 32]; // who writes "0" to it is in the group; "" if there is none
    char swap[CHAOS_LIMIT_PATH];
};

// Names only. `directory`: for the swap file, on a disk.
void chaos_limit_name(struct chaos_limit *limit, const char *directory);
// The group, limited to `bytes`, and `swap_bytes` of swap. Says what is missing if it cannot be had
// (no controller, no swap): false, and `procs` is empty.
bool chaos_limit_make(struct chaos_limit *limit, uint64_t bytes, uint64_t swap_bytes);
// How often the limit was met; pages of its processes that are on swap at this moment.
uint64_t chaos_limit_met(const struct chaos_limit *limit);
uint64_t chaos_limit_swapped(const struct chaos_limit *limit);
void chaos_limit_remove(const struct chaos_limit *limit);

#endif
