// SPDX-License-Identifier: Apache-2.0
//
// How far the filling of a VM has come (fill.h). Owner worker only.
#ifndef FAULTLINE_VM_FILL_STATE_H
#define FAULTLINE_VM_FILL_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/vm/task_state.h"
#include "snapshot/read.h"

enum fl_fill_goal {
    FL_FILL_NONE,
    FL_FILL_ALL,     // every page
    FL_FILL_NONZERO, // what differs from the zeros an unregistered page reads as
};

enum { FL_FILL_TAKING = 64 };

struct fl_fill {
    enum fl_fill_goal goal;
    uint64_t begun_ns;
    uint64_t next;    // page to look at
    uint64_t end;     // ... before this one
    uint64_t seen;    // page up to which all was seen to be there, after it was filled
    uint64_t probed;  // pages that were poisoned to see whether they are there, to be filled now
    unsigned in_vain; // times that something was missing there since
    uint64_t ahead;   // first page whose frame was not yet asked for
    struct fl_frame_id taking[FL_FILL_TAKING]; // frames that it has used last, a ring
    unsigned taken;                            // how many it has had
    bool suspended;
    struct fl_frame_id bad; // a piece of the map that cannot be read; pack 0: none
    int bad_error;
    uint8_t *buffer;   // fill_direct.h; NULL: none yet
    bool unregistered; // being released: only events are still to be read
    struct fl_task task;
};

#endif
