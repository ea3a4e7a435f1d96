// SPDX-License-Identifier: Apache-2.0
#include "engine/control/totals.h"

#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/call_filter.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/control/counters.h"
#include "engine/control/families.h"
#include "engine/control/stats.h"
#include "engine/link/death_watch.h"
#include "engine/link/keeper_link.h"
#include "engine/worker/lane.h"

// Where counters that are no worker's are counted.
static const struct place {
    const char *lives; // of its row
    enum fl_ledger_block block;
    size_t offset;
} places[] = {
    {"engine.attached", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, attached)},
    {"engine.refused", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, refused)},
    {"engine.unowned", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, unowned)},
    {"ends.released", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, ends.released)},
    {"ends.poisoned", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, ends.poisoned)},
    {"ends.poisoned_pages", FL_LEDGER_CONTROL,
     offsetof(struct fl_engine_counts, ends.poisoned_pages)},
    {"ends.killed", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, ends.killed)},
    {"log.dropped", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, log_dropped)},
    {"log.held_back", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, log_held_back)},
    {"engine.refused_calls", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, calls_refused)},
    {"captured.completed", FL_LEDGER_CONTROL,
     offsetof(struct fl_engine_counts, captures.completed)},
    {"captured.by_fault", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, captures.by_fault)},
    {"captured.by_sweep", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, captures.by_sweep)},
    {"captured.write_faults", FL_LEDGER_CONTROL,
     offsetof(struct fl_engine_counts, captures.write_faults)},
    {"files.opens", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, files.opens)},
    {"files.reads", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, files.reads)},
    {"files.bytes", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, files.bytes)},
    {"files.waited", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, files.waited)},
    {"files.held", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, files.held)},
    {"files.failed", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, files.failed)},
    {"files.interrupted", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, files.interrupted)},
    {"files.resent", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, files.resent)},
    {"keeper.deaths", FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, deaths)},
    {"cache.evictions", FL_LEDGER_CACHE, offsetof(struct fl_cache_counts, evictions)},
    {"cache.reads", FL_LEDGER_CACHE, offsetof(struct fl_cache_counts, reads)},
    {"cache.read_errors", FL_LEDGER_CACHE, offsetof(struct fl_cache_counts, read_errors)},
    {"cache.failed", FL_LEDGER_CACHE, offsetof(struct fl_cache_counts, failed)},
    {"cache.ahead_extents", FL_LEDGER_CACHE, offsetof(struct fl_cache_counts, ahead_extents)},
    {"cache.ahead_bytes", FL_LEDGER_CACHE, offsetof(struct fl_cache_counts, ahead_bytes)},
    {"cache.ahead_frames", FL_LEDGER_CACHE, offsetof(struct fl_cache_counts, ahead_frames)},
    {"cache.ahead_errors", FL_LEDGER_CACHE, offsetof(struct fl_cache_counts, ahead_errors)},
    {"cache.promoted", FL_LEDGER_CACHE, offsetof(struct fl_cache_counts, promoted)},
    {"cache.taken", FL_LEDGER_CACHE, offsetof(struct fl_cache_counts, taken)},
    {"lanes.taken", FL_LEDGER_LANES, offsetof(struct fl_lane_counts, taken)},
    {"lanes.refused", FL_LEDGER_LANES, offsetof(struct fl_lane_counts, refused)},
};

static const struct histogram {
    const char *counts; // the names of its three series
    const char *sum;
    const char *max;
    enum fl_ledger_block block;
    size_t offset;
    size_t in_stats;
} histograms[] = {
    {"fault_duration_seconds/cached", "fault_duration_seconds/cached/sum",
     "fault_duration_seconds/cached/max", FL_LEDGER_THREADS,
     offsetof(struct fl_shard_stats, latency_ns[FL_STAGE_CACHED]),
     offsetof(struct fl_stats, workers.latency_ns[FL_STAGE_CACHED])},
    {"fault_duration_seconds/read", "fault_duration_seconds/read/sum",
     "fault_duration_seconds/read/max", FL_LEDGER_THREADS,
     offsetof(struct fl_shard_stats, latency_ns[FL_STAGE_READ]),
     offsetof(struct fl_stats, workers.latency_ns[FL_STAGE_READ])},
    {"fault_duration_seconds/replay", "fault_duration_seconds/replay/sum",
     "fault_duration_seconds/replay/max", FL_LEDGER_THREADS,
     offsetof(struct fl_shard_stats, latency_ns[FL_STAGE_REPLAY]),
     offsetof(struct fl_stats, workers.latency_ns[FL_STAGE_REPLAY])},
    {"attach_duration_seconds", "attach_duration_seconds/sum", "attach_duration_seconds/max",
     FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, attach_ns),
     offsetof(struct fl_stats, attach_ns)},
    {"takeover_duration_seconds", "takeover_duration_seconds/sum", "takeover_duration_seconds/max",
     FL_LEDGER_CONTROL, offsetof(struct fl_engine_counts, takeover_ns),
     offsetof(struct fl_stats, takeover_ns)},
    {"capture_freeze_duration_seconds", "capture_freeze_duration_seconds/sum",
     "capture_freeze_duration_seconds/max", FL_LEDGER_CONTROL,
     offsetof(struct fl_engine_counts, captures.freeze_ns),
     offsetof(struct fl_stats, captured.freeze_ns)},
};

// Of captures that failed, one series for each that can be to blame.
static const char *const failures[FL_CAPTURE_BLAMES] = {
    [FL_BLAME_REFUSED] = "captures_failed_total/refused",
    [FL_BLAME_CLIENT] = "captures_failed_total/client",
    [FL_BLAME_VM] = "captures_failed_total/vm",
    [FL_BLAME_ENGINE] = "captures_failed_total/engine",
    [FL_BLAME_MEMORY] = "captures_failed_total/memory",
    [FL_BLAME_TORN] = "captures_failed_total/torn",
    [FL_BLAME_KERNEL] = "captures_failed_total/kernel",
};

#define COUNT_OF(list) (sizeof(list) / sizeof((list)[0]))
static_assert(COUNT_OF(places) + COUNT_OF(histograms) * 3 + FL_CAPTURE_BLAMES + FL_IMAGE_SERIES <
                  FL_TOTALS_MOST / 2,
              "the other half is for workers");

// --- the list ---

static void add(struct fl_totals *totals, struct fl_ledger_series series, size_t in_stats)
{
    if (totals->count == FL_TOTALS_MOST)
        return;
    if (series.rows == 0)
        series.rows = 1;
    totals->in_stats[totals->count] = in_stats;
    totals->series[totals->count++] = series;
}

static void add_place(struct fl_totals *totals, const struct fl_counter_row *row)
{
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        if (strcmp(places[i].lives, row->lives) == 0)
            add(totals,
                (struct fl_ledger_series){.name = row->metric,
                                          .block = places[i].block,
                                          .offset = (uint32_t)places[i].offset,
                                          .values = 1},
                row->offset);
    }
}

static void add_rows(struct fl_totals *totals)
{
    for (size_t i = 0; i < fl_counter_row_count; i++) {
        const struct fl_counter_row *row = &fl_counter_rows[i];
        size_t in_block = row->offset - offsetof(struct fl_stats, workers);
        if (row->kind != FL_KIND_COUNTER || !row->metric)
            continue;
        if (fl_counter_row_is_summed(row))
            add(totals,
                (struct fl_ledger_series){.name = row->metric,
                                          .block = FL_LEDGER_THREADS,
                                          .offset = (uint32_t)in_block,
                                          .values = 1},
                row->offset);
        else
            add_place(totals, row);
    }
}

static void add_histogram(struct fl_totals *totals, const struct histogram *histogram)
{
    struct fl_ledger_series series = {.name = histogram->counts,
                                      .block = histogram->block,
                                      .offset = (uint32_t)histogram->offset,
                                      .values = FL_HISTOGRAM_BUCKETS};
    add(totals, series, histogram->in_stats);
    series.name = histogram->sum;
    series.values = 1;
    series.offset = (uint32_t)(histogram->offset + offsetof(struct fl_histogram, sum));
    add(totals, series, histogram->in_stats + offsetof(struct fl_histogram, sum));
    series.name = histogram->max;
    series.combine = FL_LEDGER_MAX;
    series.offset = (uint32_t)(histogram->offset + offsetof(struct fl_histogram, max));
    add(totals, series, histogram->in_stats + offsetof(struct fl_histogram, max));
}

static void add_failures(struct fl_totals *totals)
{
    for (uint32_t i = 0; i < FL_CAPTURE_BLAMES; i++)
        add(totals,
            (struct fl_ledger_series){
                .name = failures[i],
                .block = FL_LEDGER_CONTROL,
                .offset = (uint32_t)(offsetof(struct fl_engine_counts, captures.failed) +
                                     i * sizeof(uint64_t)),
                .values = 1},
            offsetof(struct fl_stats, captured.failed) + i * sizeof(uint64_t));
}

// In the order of struct fl_image_counts.
static void add_images(struct fl_totals *totals)
{
    static const enum fl_family families[FL_IMAGE_SERIES] = {
        FL_FAMILY_IMAGE_ATTACHED, FL_FAMILY_IMAGE_REFUSED, FL_FAMILY_IMAGE_FAULTS,
        FL_FAMILY_IMAGE_LATE, FL_FAMILY_IMAGE_POISONED};
    totals->images = totals->count;
    for (uint32_t i = 0; i < FL_IMAGE_SERIES; i++)
        add(totals,
            (struct fl_ledger_series){.name = fl_family_rows[families[i]].metric,
                                      .block = FL_LEDGER_IMAGES,
                                      .offset = (uint32_t)(offsetof(struct fl_image_row, counts) +
                                                           i * sizeof(fl_counter)),
                                      .values = 1,
                                      .rows = FL_IMAGE_ROWS_ALL,
                                      .row_stride = sizeof(struct fl_image_row),
                                      .key_offset = offsetof(struct fl_image_row, name),
                                      .key_bytes = FL_IMAGE_NAME_BYTES},
            SIZE_MAX);
}

void fl_totals_list(struct fl_totals *ret_totals)
{
    memset(ret_totals, 0, sizeof(*ret_totals));
    add_rows(ret_totals);
    for (size_t i = 0; i < COUNT_OF(histograms); i++)
        add_histogram(ret_totals, &histograms[i]);
    add_failures(ret_totals);
    add_images(ret_totals);
    ret_totals->seen = ret_totals->count;
    add(ret_totals,
        (struct fl_ledger_series){.name = "engine_deaths_seen",
                                  .block = FL_LEDGER_CONTROL,
                                  .combine = FL_LEDGER_MAX,
                                  .offset = offsetof(struct fl_engine_counts, deaths_seen),
                                  .values = 1},
        SIZE_MAX);
}

int fl_totals_new_ledger(struct fl_ledger **ret_ledger)
{
    struct fl_totals *totals = malloc(sizeof(*totals));
    if (!totals)
        return -ENOMEM;
    fl_totals_list(totals);
    const struct fl_ledger_shape shape = {
        .bytes = {[FL_LEDGER_THREADS] = sizeof(struct fl_shard_stats),
                  [FL_LEDGER_CONTROL] = sizeof(struct fl_engine_counts),
                  [FL_LEDGER_CACHE] = sizeof(struct fl_cache_counts),
                  [FL_LEDGER_LANES] = sizeof(struct fl_lane_counts),
                  [FL_LEDGER_IMAGES] = sizeof(struct fl_image_table)},
        .most = {[FL_LEDGER_THREADS] = FL_LIFE_TABLE_THREADS,
                 [FL_LEDGER_CONTROL] = 1,
                 [FL_LEDGER_CACHE] = 1,
                 [FL_LEDGER_LANES] = 1,
                 [FL_LEDGER_IMAGES] = 1},
        .series = totals->series,
        .count = totals->count,
    };
    int error = fl_ledger_new(&shape, ret_ledger);
    free(totals);
    return error;
}

// --- what predecessors have counted ---

void fl_totals_go_on(struct fl_engine *engine)
{
    struct fl_totals *totals = malloc(sizeof(*totals));
    if (!totals)
        return;
    fl_totals_list(totals);
    for (unsigned i = 0; i < FL_IMAGE_SERIES; i++)
        engine->image_counting.carried[i] = fl_ledger_carried(engine->ledger, totals->images + i);
    // This one is no sum: ours goes on from it.
    fl_counter *seen = fl_ledger_carried(engine->ledger, totals->seen);
    engine->counts->deaths_seen = fl_counter_get(seen);
    fl_counter_set(seen, 0);
    free(totals);
}

static void add_numbers(fl_counter *into, const struct fl_ledger_series *series,
                        const fl_counter *carried)
{
    for (uint32_t i = 0; i < series->values; i++) {
        uint64_t number = fl_counter_get(&carried[i]);
        if (series->combine == FL_LEDGER_ADD)
            fl_counter_add(&into[i], number);
        else if (number > fl_counter_get(&into[i]))
            fl_counter_set(&into[i], number);
    }
}

void fl_totals_add_carried(const struct fl_engine *engine, struct fl_stats *stats)
{
    struct fl_totals *totals = malloc(sizeof(*totals));
    if (!totals)
        return;
    fl_totals_list(totals);
    for (unsigned i = 0; i < totals->count; i++) {
        if (totals->in_stats[i] != SIZE_MAX)
            add_numbers((fl_counter *)((char *)stats + totals->in_stats[i]), &totals->series[i],
                        fl_ledger_carried(engine->ledger, i));
    }
    free(totals);
}

// --- what others count ---

// A keeper begins with 0.
static void note_deaths(struct fl_engine_counts *counts, uint64_t deaths)
{
    counts->deaths += deaths >= counts->deaths_seen ? deaths - counts->deaths_seen : deaths;
    counts->deaths_seen = deaths;
}

void fl_totals_note(struct fl_engine *engine)
{
    struct fl_engine_counts *counts = engine->counts;
    struct fl_log_counts log;
    json_int_t generation = 0;
    json_int_t deaths = 0;
    json_int_t stall = -1;
    fl_log_count(&log);
    counts->log_dropped = log.dropped;
    counts->log_held_back = log.held_back;
    counts->calls_refused = fl_call_filter_refused();
    json_t *news = json_loads(fl_keeper_link_news(engine->keeper_link), JSON_DECODE_ANY, NULL);
    bool told = json_unpack(news, "{s:I, s:I, s?I}", "generation", &generation, "deaths", &deaths,
                            "stall_us", &stall) == 0;
    json_decref(news);
    if (!told)
        return;
    note_deaths(counts, (uint64_t)deaths);
    if (stall > 0 && engine->generation != 0 && engine->generation == (uint64_t)generation &&
        !engine->stall_noted) {
        engine->stall_noted = true; // each engine has one
        fl_histogram_add(&counts->takeover_ns, (uint64_t)stall * FL_NS_PER_US);
    }
}
