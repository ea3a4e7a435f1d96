// SPDX-License-Identifier: Apache-2.0
//
// A pipeline passes a fixed number of items through stages. An ordered stage takes one item at a
// time, in the order of the input; other stages take any number at once. A thread does whatever
// work is ready, the latest stage first, so no thread waits for a slow item while there is other
// work and a free item.
#ifndef FAULTLINE_SNAPSHOT_PIPELINE_H
#define FAULTLINE_SNAPSHOT_PIPELINE_H

#include <stdbool.h>

#include "snapshot/store.h"

#define FL_THREADS_MAX 256u
#define FL_STAGES_MAX 8u

// Runs in any thread of the pipeline; `thread` is its number, from 0. The first stage returns 1 if
// it has filled the item in, 0 at the end of the input. Negative errno stops the pipeline.
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
    // done is called in the thread that called fl_pipeline_run, to report progress; it may be
    // called while stages run.
    uint64_t (*done)(void *arg);
    // May be NULL. Called once if the pipeline ends with an error, as soon as that is known: a
    // stage that waits for something should wait no longer. Must not block.
    void (*stopped)(void *arg);
    uint64_t total;
    const struct fl_progress *progress;
};

// Runs the pipeline to its end on `threads` new threads. Returns 0 or the first error.
int fl_pipeline_run(const struct fl_pipeline *pipeline);

// Returns the number of threads for an operation: `asked`, or if that is 0 one for each core that
// the process may use.
unsigned fl_threads(unsigned asked);

#endif
