// SPDX-License-Identifier: Apache-2.0
//
// Whether the host has memory to spare for work that no VM waits for. The control thread looks, now
// and then and only while a worker wants to know; workers read what it saw.
#ifndef FAULTLINE_HOST_HOST_MEMORY_H
#define FAULTLINE_HOST_HOST_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct fl_host_memory {
    _Atomic bool scarce;      // memory: less than the reserve is available
    _Atomic bool huge_scarce; // free pages of 2 MiB, likewise
    // Control thread:
    unsigned reserve;   // percent of all there is
    uint64_t wanted_ns; // when a worker last began to want it; 0: never
    uint64_t looked_ns;
};

// Control thread, all of them. A worker begins to want to know: looks, if the last look is old.
void fl_host_memory_wanted(struct fl_host_memory *memory, uint64_t now);
// Looks if it is time; `wanted`: a worker wants to know it still.
void fl_host_memory_run(struct fl_host_memory *memory, bool wanted, uint64_t now);
// When to look next; FL_NEVER if no worker wants to know.
uint64_t fl_host_memory_next_due(const struct fl_host_memory *memory, bool wanted, uint64_t now);

// Any thread; looks now. Less than so many percent of the host's memory are available.
bool fl_host_memory_is_scarce(unsigned reserve);
// Any thread; looks now. Bytes that can be had without swapping; 0 if that is not known.
uint64_t fl_host_memory_available(void);

#endif
