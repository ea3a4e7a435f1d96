// SPDX-License-Identifier: Apache-2.0
//
// Pages that are installed one call after another, and whose waiters are woken only at the end. A
// guest that touches its working set faster than it can be copied would, woken by each call, run
// for as long as a few pages last and fault again: each time it and the worker change places for
// it. A death in between leaves no thread waiting: the messages of those that wait are still to be
// read, or, if they were read, the successor wakes all that wait.
//
// Owner worker only; lives on its stack for one slice of a task.
#ifndef FAULTLINE_SERVE_BURST_H
#define FAULTLINE_SERVE_BURST_H

#include <stdint.h>

struct fl_vm;

enum { FL_BURST_RANGES = 64 };

struct fl_burst {
    struct fl_vm *vm;
    uint32_t ranges;
    struct {
        uint64_t page;
        uint64_t pages;
    } range[FL_BURST_RANGES];
};

static inline void fl_burst_begin(struct fl_burst *burst, struct fl_vm *vm)
{
    burst->vm = vm;
    burst->ranges = 0;
}

// These pages are there, and were installed with FL_WAKE_LATER.
void fl_burst_add(struct fl_burst *burst, uint64_t page, uint64_t pages);
// Wakes the waiters of all of them. The VM may have gone.
void fl_burst_end(struct fl_burst *burst);

#endif
