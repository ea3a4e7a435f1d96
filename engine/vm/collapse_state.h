// SPDX-License-Identifier: Apache-2.0
//
// How far the hot ranges of a VM have become pages of 2 MiB (ahead/collapse.h).
#ifndef FAULTLINE_VM_COLLAPSE_STATE_H
#define FAULTLINE_VM_COLLAPSE_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/base/counter.h"
#include "engine/vm/huge_ranges.h"
#include "engine/vm/task_state.h"

struct fl_collapse_job;

enum fl_collapse_state {
    FL_COLLAPSE_OFF,     // not wanted, or not for memory like this VM's
    FL_COLLAPSE_WAITING, // for the trace
    FL_COLLAPSE_RUNNING, // also while it waits for the end of replay, and for the VM to be quiet
    FL_COLLAPSE_PAUSED,  // memory is short
    FL_COLLAPSE_DONE,
    FL_COLLAPSE_REFUSED, // the kernel does not let us
    FL_COLLAPSE_ENDED,   // before its end: the VM is filled or released
};

struct fl_collapse {
    // Written by the owner, read by anyone.
    _Atomic enum fl_collapse_state state;
    fl_counter wanted; // ranges of 2 MiB that are hot
    fl_counter huge;   // that are one page, as far as is known
    fl_counter left;   // that cannot be, or are not worth it
    fl_counter split;  // that were, and were given back in part
    fl_counter filled; // pages of 4 KiB that were put into them for that,
    fl_counter zeros;  // of which zeros
    fl_counter ns;     // in calls

    // Owner only.
    struct fl_huge_ranges ranges; // none before the trace was seen
    unsigned least;               // this time through: ranges with so many pages of the working set
    uint64_t next;                // range to look at
    unsigned rounds;              // that were begun anew for what was to be tried later
    bool again;                   // there is something to be tried later
    unsigned in_vain;             // calls in a row for which there was no memory
    struct fl_collapse_job *job;  // NULL unless a call runs
    struct fl_task task;
};

#endif
