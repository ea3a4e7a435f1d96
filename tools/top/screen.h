// SPDX-License-Identifier: Apache-2.0
//
// The screen of `faultline top`, by ncurses. One thread; between screen_begin() and screen_end()
// the terminal is ours.
#ifndef FAULTLINE_TOOLS_TOP_SCREEN_H
#define FAULTLINE_TOOLS_TOP_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

#include "tools/cli/verdict.h"
#include "tools/top/model.h"

enum top_view { TOP_VMS, TOP_IMAGES, TOP_WORKERS, TOP_VIEWS };

struct top_screen {
    const char *control; // the path of the server's socket
    enum top_view view;
    enum top_sort sort;
    size_t first;             // row that is shown at the top
    char filter[TOP_WORD];    // of VMs
    bool typing;              // the filter is being typed
    bool help;                // the help is shown
    bool ended;               // the user wants to leave
    char lost[VERDICT_BYTES]; // why there is no answer; "": there is one
};

// Takes the terminal. False if it cannot be had: `TERM` names none that can be drawn on.
bool screen_begin(void);
void screen_end(void);
// Draws all of it, in whatever size the terminal has.
void screen_draw(struct top_screen *screen, const struct top_model *model);
// Waits for a key, at most so long, and acts on it. True if something is to be drawn anew.
bool screen_key(struct top_screen *screen, int wait_ms);

#endif
