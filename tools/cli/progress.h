// SPDX-License-Identifier: Apache-2.0
//
// A progress bar on stderr where that is a terminal, nothing otherwise; and Ctrl-C, which asks the
// operation to stop and clean up after itself. One operation at a time, in the main thread.
#ifndef FAULTLINE_TOOLS_CLI_PROGRESS_H
#define FAULTLINE_TOOLS_CLI_PROGRESS_H

#include <stdbool.h>

#include "snapshot/store.h"

struct progress {
    const char *what; // "packing"
    bool bytes;       // the unit: bytes, or objects
    bool shown;       // a bar is on the screen
    bool terminal;
    double start;
};

// Catches SIGINT and SIGTERM from here on. The result refers to progress.
struct fl_progress progress_begin(struct progress *progress, const char *what, bool bytes);
// Takes the bar off the screen.
void progress_end(struct progress *progress);

#endif
