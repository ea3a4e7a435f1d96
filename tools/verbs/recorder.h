// SPDX-License-Identifier: Apache-2.0
//
// Has a running server record VMs, and fetches the recordings. If the engine dies, its order and
// the recordings that were not fetched yet are lost; the recorder then orders the rest from its
// successor. For one thread.
#ifndef FAULTLINE_TOOLS_VERBS_RECORDER_H
#define FAULTLINE_TOOLS_VERBS_RECORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "snapshot/store.h"

enum { RECORDER_RUNS_MAX = 64 };

struct recorder {
    // The caller sets these:
    const char *verb; // for sentences on stderr
    const char *control;
    const char *image;
    unsigned runs;
    uint64_t window_ms;
    unsigned share;
    // The results, and the progress:
    struct fl_recording recording[RECORDER_RUNS_MAX]; // the recorder owns their memory
    uint8_t content_id[RECORDER_RUNS_MAX][32];
    unsigned fetched;
    unsigned recorded_now; // VMs that are being recorded
    uint64_t pages_now;    // pages that they have touched so far
    // Private:
    char id[33];       // of all orders of this recorder
    bool ordered;      // an order has been given
    unsigned of_order; // recordings fetched from the order that the engine has now
};

// Gives the order. Returns EXIT_DONE, or EXIT_FAILED after a sentence.
int recorder_begin(struct recorder *recorder);
// Asks for the progress, and fetches the recordings that are complete. Returns EXIT_DONE, also if
// no server answers just now, or EXIT_FAILED after a sentence.
int recorder_look(struct recorder *recorder);
// Cancels the order if the server still has it.
void recorder_end(struct recorder *recorder);
// Frees the recordings.
void recorder_free(struct recorder *recorder);

#endif
