// SPDX-License-Identifier: Apache-2.0
//
// The one table of what the server counts: the name of each number in the metrics, its key in the
// status, what it means, and where it lives. The metrics (status_prometheus.c), the status
// (status_json.c) and docs/metrics.md are made from it. To add a number, add a field to struct
// fl_stats (or to what it contains) and a row to counters.c; then make docs/metrics.md anew with
// build/PRESET/tests/counter_docs.
//
// Constant data: any thread.
#ifndef FAULTLINE_CONTROL_COUNTERS_H
#define FAULTLINE_CONTROL_COUNTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fl_stats;

enum fl_counter_kind {
    FL_KIND_COUNTER, // only grows while an engine lives
    FL_KIND_GAUGE,
};

// How the number is stored in struct fl_stats.
enum fl_counter_shape {
    FL_SHAPE_U64,  // uint64_t or fl_counter
    FL_SHAPE_UINT, // unsigned
    FL_SHAPE_BOOL, // 0 and 1 in the metrics, true and false in the status
    FL_SHAPE_NS,   // nanoseconds: seconds in the metrics, milliseconds in the status
};

struct fl_counter_row {
    enum fl_counter_kind kind;
    enum fl_counter_shape shape;
    const char *metric; // behind its prefix; NULL: not in the metrics
    const char *json;   // path of keys in the status, joined by dots; NULL: not there
    const char *help;   // one sentence
    const char *lives;  // the field of struct fl_stats
    size_t offset;      // of that field
};

extern const struct fl_counter_row fl_counter_rows[];
extern const size_t fl_counter_row_count;

// What stands before the name of a row that has a metric: "faultline_", or nothing if the name is
// one that the metrics of all programs have.
const char *fl_counter_row_prefix(const struct fl_counter_row *row);
// The row's value: a BOOL is 0 or 1, NS is in nanoseconds; FL_STAT_UNKNOWN (stats.h).
uint64_t fl_counter_row_value(const struct fl_counter_row *row, const struct fl_stats *stats);
// True if the row is summed over the workers (struct fl_stats, `workers`).
bool fl_counter_row_is_summed(const struct fl_counter_row *row);

#endif
