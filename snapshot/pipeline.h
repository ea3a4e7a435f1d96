// SPDX-License-Identifier: Apache-2.0
//
// Work that passes through stages, on a fixed number of items. Some stages take one item at a time
// in order, others any number at once; a thread does whatever is ready, the latest stage first, so
// that nobody waits for a slow item as long as there is other work and a free item.
#ifndef FAULTLINE_SNAPSHOT_PIPELINE_H
#define FAULTLINE_SNAPSHOT_PIPELINE_H

#include <stdbool.h>

#include "snapshot/store.h"

#define FL_THREADS_MAX 256u
#define FL_STAGES_MAX 8u

// Negative errno stops everything. The first stage returns 1 for "filled in", 0 for the input's
// end.
typedef int (*fl_stage_fn)(void *arg, void *item, unsigned thread);

struct fl_stage {
    fl_stage_fn fn;
    bool ordered; // one at a time, in order. The first stage must be.
};

struct fl_pipeline {
    const struct fl_stage *stages;
    unsigned stages_count;
    void **items; // each handed to one stage at a time
    unsigned items_count;
    unsigned threads;
    void *arg;
    // Progress is reported from the calling thread, with what `done` says then.
    uint64_t (*done)(void *arg);
    uint64_t total;
    const struct fl_progress *progress;
};

// Runs to the end on `threads` new threads. Returns the first error.
int fl_pipeline_run(const struct fl_pipeline *pipeline);

// The number of threads an operation shall use: what was asked for, or one for each core it may
// use.
unsigned fl_threads(unsigned asked);

#endif
