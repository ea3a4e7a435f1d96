// SPDX-License-Identifier: Apache-2.0
//
// A memory cgroup (of version 1 where the memory controller is there, else of version 2) with a
// limit below what its processes use, and a swap file. chaos_limit_remove() removes what it finds
// of them. It works in any process that has the same struct, also if the run was killed.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_LIMIT_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_LIMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { CHAOS_LIMIT_PATH = 1200 };

struct chaos_limit {
    char group[CHAOS_LIMIT_PATH];
    char procs[CHAOS_LIMIT_PATH + 32]; // a process that writes "0" to it joins; "": no group
    char swap[CHAOS_LIMIT_PATH];
};

// Only makes the names. `directory` is for the swap file, and must be on a disk.
void chaos_limit_name(struct chaos_limit *limit, const char *directory);
// Makes the group, limited to `bytes`, and a swap file. Prints why and returns false if that fails;
// then `procs` is empty.
bool chaos_limit_make(struct chaos_limit *limit, uint64_t bytes, uint64_t swap_bytes);
// Returns how often the limit was met; how many pages of the group are on swap at this moment.
uint64_t chaos_limit_met(const struct chaos_limit *limit);
uint64_t chaos_limit_swapped(const struct chaos_limit *limit);
void chaos_limit_remove(const struct chaos_limit *limit);

#endif
