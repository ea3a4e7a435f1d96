// SPDX-License-Identifier: Apache-2.0
//
// Keeps work in the background below a number of bytes a second.
#ifndef FAULTLINE_SNAPSHOT_PACE_H
#define FAULTLINE_SNAPSHOT_PACE_H

#include <stdatomic.h>
#include <stdint.h>

// One thread at a time counts; any may stop it.
struct fl_pace {
    uint64_t rate; // bytes a second; 0: no limit
    double start;  // seconds, of fl_seconds_wall(); 0: not begun
    uint64_t bytes;
    atomic_bool stopped;
};

// Counts bytes, and sleeps for as long as they came too early.
void fl_pace_count(struct fl_pace *pace, uint64_t bytes);
// Ends a sleep soon, and all later ones.
void fl_pace_stop(struct fl_pace *pace);

#endif
