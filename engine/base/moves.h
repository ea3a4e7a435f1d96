// SPDX-License-Identifier: Apache-2.0
//
// The moves of a state machine, checked. Each machine has one function that changes its state, and
// a table of the moves that are allowed; a move that is not in it is a bug of the caller.
#ifndef FAULTLINE_BASE_MOVES_H
#define FAULTLINE_BASE_MOVES_H

#include <stdbool.h>
#include <stdlib.h>

#include "engine/base/log.h"

// Test builds end at a move that is not allowed. Release builds log it and make it: to end would
// cost the VMs more than a state that is wrong.
static inline void fl_moves_check(bool allowed, const char *machine, int from, int to)
{
    if (allowed)
        return;
    fl_log(FL_LOG_ERROR, "event=wrong_move machine=%s from=%d to=%d", machine, from, to);
#ifdef FAULTLINE_POINTS
    abort();
#endif
}

#endif
