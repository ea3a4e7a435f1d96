// SPDX-License-Identifier: Apache-2.0
//
// The text format of Prometheus, version 0.0.4.
#include "engine/control/status.h"

#include <faultline_version.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/control/collect.h"
#include "engine/control/counters.h"
#include "engine/control/families.h"
#include "engine/control/stats.h"
#include "engine/link/degraded.h"

static void write_row(FILE *out, const struct fl_counter_row *row, const struct fl_stats *stats)
{
    uint64_t value = fl_counter_row_value(row, stats);
    const char *prefix = fl_counter_row_prefix(row);
    if (value == FL_STAT_UNKNOWN)
        return;
    fprintf(out, "# HELP %s%s %s\n# TYPE %s%s %s\n%s%s ", prefix, row->metric, row->help, prefix,
            row->metric, row->kind == FL_KIND_COUNTER ? "counter" : "gauge", prefix, row->metric);
    if (row->shape == FL_SHAPE_NS)
        fprintf(out, "%.3f\n", (double)value / (double)FL_NS_PER_S);
    else
        fprintf(out, "%" PRIu64 "\n", value);
}

static void write_head(FILE *out, enum fl_family family)
{
    const struct fl_family_row *row = &fl_family_rows[family];
    fprintf(out, "# HELP faultline_%s %s\n# TYPE faultline_%s %s\n", row->metric, row->help,
            row->metric, row->type);
}

// The value of a label, quoted.
static void write_quoted(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '\n') {
            fputs("\\n", out);
            continue;
        }
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        // A name need not be UTF-8, but this must be.
        fputc((unsigned char)*text < 0x80 ? *text : '?', out);
    }
    fputc('"', out);
}

// --- histograms ---

// `label`: one name and its value, with a comma behind it; or "".
static void write_histogram(FILE *out, enum fl_family family, const char *label,
                            const struct fl_histogram *histogram)
{
    const char *name = fl_family_rows[family].metric;
    int length = (int)strlen(label) - (*label != '\0');
    // Once: it goes on growing, and the last bucket must be the count.
    uint64_t total = fl_histogram_total(histogram);
    for (unsigned exponent = FL_BUCKET_FIRST; exponent <= FL_BUCKET_LAST; exponent++)
        fprintf(out, "faultline_%s_bucket{%sle=\"%.9f\"} %" PRIu64 "\n", name, label,
                (double)(1ULL << exponent) / (double)FL_NS_PER_S,
                fl_histogram_below(histogram, exponent));
    fprintf(out, "faultline_%s_bucket{%sle=\"+Inf\"} %" PRIu64 "\n", name, label, total);
    fprintf(out, "faultline_%s_sum%s%.*s%s %.9f\n", name, length ? "{" : "", length, label,
            length ? "}" : "", (double)fl_counter_get(&histogram->sum) / (double)FL_NS_PER_S);
    fprintf(out, "faultline_%s_count%s%.*s%s %" PRIu64 "\n", name, length ? "{" : "", length, label,
            length ? "}" : "", total);
}

static void write_latency(FILE *out, const struct fl_stats *stats)
{
    static const char *const label[FL_STAGES] = {
        [FL_STAGE_CACHED] = "stage=\"cached\",",
        [FL_STAGE_READ] = "stage=\"read\",",
        [FL_STAGE_REPLAY] = "stage=\"replay\",",
    };
    write_head(out, FL_FAMILY_FAULT_DURATION);
    for (unsigned stage = 0; stage < FL_STAGES; stage++)
        write_histogram(out, FL_FAMILY_FAULT_DURATION, label[stage],
                        &stats->workers.latency_ns[stage]);
}

// --- captures ---

static void write_captures(FILE *out, const struct fl_stats *stats)
{
    write_head(out, FL_FAMILY_CAPTURES_FAILED);
    for (unsigned i = 0; i < FL_CAPTURE_BLAMES; i++)
        fprintf(out, "faultline_%s{blame=\"%s\"} %" PRIu64 "\n",
                fl_family_rows[FL_FAMILY_CAPTURES_FAILED].metric,
                fl_capture_blame_name((enum fl_capture_blame)i), stats->captured.failed[i]);
    write_head(out, FL_FAMILY_CAPTURE_FREEZE);
    write_histogram(out, FL_FAMILY_CAPTURE_FREEZE, "", &stats->captured.freeze_ns);
}

// --- images ---

static uint64_t image_value(const struct fl_image_shown *shown, enum fl_family family)
{
    switch (family) {
    case FL_FAMILY_IMAGE_VMS:
        return shown->vms;
    case FL_FAMILY_IMAGE_ATTACHED:
        return fl_counter_get(&shown->counts.attached);
    case FL_FAMILY_IMAGE_REFUSED:
        return fl_counter_get(&shown->counts.refused);
    case FL_FAMILY_IMAGE_FAULTS:
        return fl_counter_get(&shown->counts.faults);
    case FL_FAMILY_IMAGE_LATE:
        return fl_counter_get(&shown->counts.late);
    case FL_FAMILY_IMAGE_POISONED:
        return fl_counter_get(&shown->counts.poisoned);
    case FL_FAMILY_BUILD:
    case FL_FAMILY_DEGRADED:
    case FL_FAMILY_FAULT_DURATION:
    case FL_FAMILY_ATTACH_DURATION:
    case FL_FAMILY_TAKEOVER_DURATION:
    case FL_FAMILY_CAPTURES_FAILED:
    case FL_FAMILY_CAPTURE_FREEZE:
    case FL_FAMILIES:
        break;
    }
    return 0;
}

static void write_images(FILE *out, const struct fl_stats *stats)
{
    for (enum fl_family family = FL_FAMILY_IMAGE_VMS; family <= FL_FAMILY_IMAGE_POISONED;
         family++) {
        write_head(out, family);
        for (unsigned i = 0; i < FL_IMAGE_ROWS_ALL; i++) {
            if (stats->image[i].name[0] == '\0')
                continue;
            fprintf(out, "faultline_%s{image=", fl_family_rows[family].metric);
            write_quoted(out, stats->image[i].name);
            fprintf(out, "} %" PRIu64 "\n", image_value(&stats->image[i], family));
        }
    }
}

// --- all of it ---

static void write_all(FILE *out, const struct fl_engine *engine, const struct fl_stats *stats)
{
    write_head(out, FL_FAMILY_BUILD);
    fputs("faultline_build_info{version=", out);
    write_quoted(out, FAULTLINE_VERSION);
    fputs("} 1\n", out);
    for (size_t i = 0; i < fl_counter_row_count; i++) {
        if (fl_counter_rows[i].metric)
            write_row(out, &fl_counter_rows[i], stats);
    }
    write_head(out, FL_FAMILY_DEGRADED);
    fl_degraded_metrics(&engine->degraded, out);
    write_latency(out, stats);
    write_head(out, FL_FAMILY_ATTACH_DURATION);
    write_histogram(out, FL_FAMILY_ATTACH_DURATION, "", &stats->attach_ns);
    write_head(out, FL_FAMILY_TAKEOVER_DURATION);
    write_histogram(out, FL_FAMILY_TAKEOVER_DURATION, "", &stats->takeover_ns);
    write_captures(out, stats);
    write_images(out, stats);
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
    write_all(out, engine, stats);
    free(stats);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
