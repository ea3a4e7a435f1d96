// SPDX-License-Identifier: Apache-2.0
#include "engine/control/status.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/clock.h"
#include "engine/control/collect.h"
#include "engine/control/counters.h"
#include "engine/control/stats.h"
#include "engine/link/degraded.h"

static void write_row(FILE *out, const struct fl_counter_row *row, const struct fl_stats *stats)
{
    uint64_t value = fl_counter_row_value(row, stats);
    fprintf(out, "# HELP faultline_%s %s\n# TYPE faultline_%s %s\nfaultline_%s ", row->metric,
            row->help, row->metric, row->kind == FL_KIND_COUNTER ? "counter" : "gauge",
            row->metric);
    if (row->shape == FL_SHAPE_NS)
        fprintf(out, "%.3f\n", (double)value / (double)FL_NS_PER_S);
    else
        fprintf(out, "%" PRIu64 "\n", value);
}

static void write_latency(FILE *out, const struct fl_stats *stats)
{
    static const double shares[] = {0.5, 0.9, 0.99, 0.999, 1};
    fputs(
        "# HELP faultline_fault_seconds Time from the reading of a fault until its page is there.\n"
        "# TYPE faultline_fault_seconds summary\n",
        out);
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++)
        fprintf(out, "faultline_fault_seconds{quantile=\"%g\"} %.9f\n", shares[i],
                (double)fl_histogram_quantile(&stats->workers.latency_ns, shares[i]) /
                    (double)FL_NS_PER_S);
    fprintf(out, "faultline_fault_seconds_sum %.9f\nfaultline_fault_seconds_count %" PRIu64 "\n",
            (double)fl_counter_get(&stats->workers.latency_ns.sum) / (double)FL_NS_PER_S,
            fl_histogram_total(&stats->workers.latency_ns));
}

char *fl_status_prometheus(struct fl_engine *engine, bool draining)
{
    char *text = NULL;
    size_t size = 0;
    struct fl_stats *stats = malloc(sizeof(*stats));
    FILE *out = stats ? open_memstream(&text, &size) : NULL;
    if (!out) {
        free(stats);
        return NULL;
    }
    fl_stats_collect(engine, draining, stats);
    for (size_t i = 0; i < fl_counter_row_count; i++) {
        if (fl_counter_rows[i].metric)
            write_row(out, &fl_counter_rows[i], stats);
    }
    fl_degraded_metrics(&engine->degraded, out);
    write_latency(out, stats);
    free(stats);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
