// SPDX-License-Identifier: Apache-2.0
//
// Has a running server record VMs and fetches what they touched, through any number of engines: an
// engine that dies takes its order and what it had not handed over along, and its successor is
// ordered the rest.
#ifndef FAULTLINE_TOOLS_VERBS_RECORDER_H
#define FAULTLINE_TOOLS_VERBS_RECORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "snapshot/store.h"

enum { RECORDER_RUNS_MAX = 64 };

struct recorder {
    // Given:
    const char *verb; // for sentences on stderr
    const char *control;
    const char *image;
    unsigned runs;
    uint64_t window_ms;
    unsigned share;
    // What has been fetched, and how it goes:
    struct fl_recording recording[RECORDER_RUNS_MAX]; // their memory is the recorder's
    uint8_t content_id[RECORDER_RUNS_MAX][32];
    unsigned fetched;
    unsigned recorded_now; // VMs
    uint64_t pages_now;    // that they have touched so far
    // Its own:
    char id[33];
    bool ordered;
    unsigned of_order; // fetched from the order that the engine has now
};

// Orders. EXIT_DONE, or EXIT_FAILED after a sentence.
int recorder_begin(struct recorder *recorder);
// Looks how far it is, and fetches what is complete. EXIT_DONE also if nobody answers just now.
int recorder_look(struct recorder *recorder);
// Takes the order back, if the server has it still.
void recorder_end(struct recorder *recorder);
void recorder_free(struct recorder *recorder);

#endif
