// SPDX-License-Identifier: Apache-2.0
//
// Which numbers are totals: those that go on with the next engine. They are counted in the ledger
// (engine/link/ledger.h), as series that have the names of their metrics.
//
// Control thread only.
#ifndef FAULTLINE_CONTROL_TOTALS_H
#define FAULTLINE_CONTROL_TOTALS_H

#include <stddef.h>

#include "engine/link/ledger.h"

struct fl_engine;
struct fl_stats;

enum { FL_TOTALS_MOST = 192 };

struct fl_totals {
    struct fl_ledger_series series[FL_TOTALS_MOST];
    size_t in_stats[FL_TOTALS_MOST]; // the place of its first number there; SIZE_MAX: none
    unsigned count;
    unsigned images; // the first of the series of images
    unsigned seen;   // of deaths that the keeper has told of
};

// The same for each engine of this version.
void fl_totals_list(struct fl_totals *ret_totals);
// A ledger for an engine that is to be started. -ENOMEM.
int fl_totals_new_ledger(struct fl_ledger **ret_ledger);
// Once predecessors' ledgers are in the engine's: has it go on from there.
void fl_totals_go_on(struct fl_engine *engine);
// Adds what predecessors have counted.
void fl_totals_add_carried(const struct fl_engine *engine, struct fl_stats *stats);
// Counts what others know: often enough that none of it is missed.
void fl_totals_note(struct fl_engine *engine);

#endif
