// SPDX-License-Identifier: Apache-2.0
//
// How far a VM's replay has come (replay.h).
#ifndef FAULTLINE_VM_REPLAY_STATE_H
#define FAULTLINE_VM_REPLAY_STATE_H

#include <stdatomic.h>
#include <stdint.h>

#include "engine/base/counter.h"
#include "engine/vm/task_state.h"

struct fl_plan;

enum fl_replay_state {
    FL_REPLAY_NONE,    // no trace, or none wanted
    FL_REPLAY_LOADING, // its trace is being looked for
    FL_REPLAY_RUNNING,
    FL_REPLAY_PAUSED, // memory is short
    FL_REPLAY_DONE,
    FL_REPLAY_ENDED, // before its end: the VM is filled or released
};

struct fl_replay {
    // Written by the owner, read by anyone.
    _Atomic enum fl_replay_state state;
    fl_counter pages; // of 4 KiB that it has installed
    fl_counter late;  // pages of the trace that were touched before it came to them, each once
    fl_counter total; // pages of the trace
    fl_counter ns;    // from its beginning to its end

    // Owner only.
    struct fl_plan *plan; // while it runs
    uint64_t begun_ns;
    uint64_t next;  // step of the plan (2 MiB pages: entry of the trace) to be done; all before are
    uint64_t scan;  // while it waits for `next`: what to try meanwhile
    uint64_t ahead; // first whose frames were not asked for yet
    uint64_t end;
    uint32_t slice;  // 4 KiB pages: so many a slice may copy, if not the least
    uint64_t *asked; // 2 MiB pages: bitmaps, of those whose frames were asked for ...
    uint64_t *tried; // ... and of those that were taken on
    uint64_t asked_count;
    uint64_t tried_count;
    struct fl_task task;
};

#endif
