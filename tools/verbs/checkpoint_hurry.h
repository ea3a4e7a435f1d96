// SPDX-License-Identifier: Apache-2.0
//
// For as long as a VM stands still its checkpoint is a chain of a dozen wake-ups between four
// threads of three processes. So no CPU sleeps deeply meanwhile, and the command is not kept
// waiting by what else runs. Both are wishes: where the user may not have them, the pause is
// longer.
#ifndef FAULTLINE_TOOLS_VERBS_CHECKPOINT_HURRY_H
#define FAULTLINE_TOOLS_VERBS_CHECKPOINT_HURRY_H

#include <stdbool.h>

struct hurry {
    bool begun;
    int latency; // holds the CPUs awake while it is open; -1: not
    int nice;    // of the thread, before
};

// Main thread.
void hurry_begin(struct hurry *hurry);
// For one that was not begun, or has ended: a no-op.
void hurry_end(struct hurry *hurry);

#endif
