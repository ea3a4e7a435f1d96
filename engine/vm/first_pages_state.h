// SPDX-License-Identifier: Apache-2.0
//
// How far the ranges of a VM that were empty have got their first pages (first_pages.h).
#ifndef FAULTLINE_VM_FIRST_PAGES_STATE_H
#define FAULTLINE_VM_FIRST_PAGES_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/counter.h"
#include "engine/vm/task_state.h"

struct fl_first_pages {
    fl_counter pages; // written by the owner, read by anyone

    // Owner only.
    bool bytes;      // the second time through: of ranges that have no page of zeros, one of bytes
    uint32_t region; // the next range to look at: its region,
    uint64_t range;  // and its number there
    struct fl_task task;
};

#endif
