// SPDX-License-Identifier: Apache-2.0
//
// Shows a progress bar if stderr is a terminal. Also turns Ctrl-C into a request that the operation
// stops and cleans up after itself. For one operation at a time, in the main thread.
#ifndef FAULTLINE_TOOLS_CLI_PROGRESS_H
#define FAULTLINE_TOOLS_CLI_PROGRESS_H

#include <stdbool.h>

#include "snapshot/store.h"

struct progress {
    const char *what; // such as "packing"
    bool bytes;       // the amounts are bytes; otherwise objects
    bool shown;       // a bar is on the screen
    bool terminal;    // stderr is a terminal
    double start;     // seconds, CLOCK_MONOTONIC
};

// Catches SIGINT, SIGTERM and SIGHUP from here on. Returns the callback to give to the operation;
// it refers to *progress.
struct fl_progress progress_begin(struct progress *progress, const char *what, bool bytes);
// Whether one of these signals has come since the process began. Any thread.
bool progress_interrupted(void);
// Removes the bar from the screen.
void progress_end(struct progress *progress);

// True if stderr is a terminal on which a line can be drawn over: one that is not dumb. For verbs
// that show their progress in other words.
bool progress_is_drawn(void);

#endif
