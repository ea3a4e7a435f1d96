// SPDX-License-Identifier: Apache-2.0
//
// One look at all numbers of the server. Control thread.
#ifndef FAULTLINE_CONTROL_COLLECT_H
#define FAULTLINE_CONTROL_COLLECT_H

#include <stdbool.h>

struct fl_engine;
struct fl_stats;

// struct fl_stats is large: not for the stack.
void fl_stats_collect(struct fl_engine *engine, bool draining, struct fl_stats *ret_stats);

#endif
