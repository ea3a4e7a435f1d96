// SPDX-License-Identifier: Apache-2.0
#include "engine/control/collect.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/accept/admission.h"
#include "engine/base/clock.h"
#include "engine/base/descriptors.h"
#include "engine/control/counters.h"
#include "engine/control/stats.h"
#include "engine/control/totals.h"
#include "engine/link/keeper_link.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/oldest_fault.h"

// Weak: jemalloc is linked into the command only, and not into its sanitized builds.
int mallctl(const char *name, void *old, size_t *old_size, void *new, size_t new_size)
    __attribute__((weak));

static uint64_t allocated(void)
{
    uint64_t epoch = 1;
    size_t bytes = 0;
    size_t size = sizeof(epoch);
    if (!mallctl)
        return 0;
    mallctl("epoch", &epoch, &size, &epoch, size); // refreshes the statistics
    size = sizeof(bytes);
    return mallctl("stats.allocated", &bytes, &size, NULL, 0) == 0 ? bytes : 0;
}

static void add_worker(struct fl_stats *stats, const struct fl_shard_stats *worker)
{
    for (size_t i = 0; i < fl_counter_row_count; i++) {
        const struct fl_counter_row *row = &fl_counter_rows[i];
        size_t at = row->offset - offsetof(struct fl_stats, workers);
        if (fl_counter_row_is_summed(row))
            fl_counter_add((fl_counter *)((char *)&stats->workers + at),
                           fl_counter_get((const fl_counter *)((const char *)worker + at)));
    }
    for (unsigned stage = 0; stage < FL_STAGES; stage++)
        fl_histogram_merge(&stats->workers.latency_ns[stage], &worker->latency_ns[stage]);
}

static void count_lacking(void *arg, const struct fl_vm *vm)
{
    *(unsigned *)arg += atomic_load(&vm->shortage.since_ns) != 0;
}

static void look_at_captures(const struct fl_engine *engine, struct fl_stats *stats)
{
    const struct fl_capture_counts *counts = &engine->counts->captures;
    stats->captures = fl_captures_count(engine->captures);
    stats->captured.completed = counts->completed;
    memcpy(stats->captured.failed, counts->failed, sizeof(counts->failed));
    stats->captured.by_fault = counts->by_fault;
    stats->captured.by_sweep = counts->by_sweep;
    stats->captured.write_faults = counts->write_faults;
    fl_histogram_merge(&stats->captured.freeze_ns, &counts->freeze_ns);
}

static void look_at_engine(struct fl_engine *engine, struct fl_stats *stats)
{
    stats->engine.workers = engine->worker_count;
    stats->engine.vms = engine->vms.count;
    stats->engine.attached = engine->counts->attached;
    stats->engine.refused = engine->counts->refused;
    stats->engine.refused_calls = engine->counts->calls_refused;
    stats->engine.unowned = engine->counts->unowned;
    stats->log.dropped = engine->counts->log_dropped;
    stats->log.held_back = engine->counts->log_held_back;
    fl_histogram_merge(&stats->attach_ns, &engine->counts->attach_ns);
    fl_histogram_merge(&stats->takeover_ns, &engine->counts->takeover_ns);
    look_at_captures(engine, stats);
    stats->engine.oldest_ns = fl_oldest_fault(engine);
    stats->engine.unproven = atomic_load(&engine->prefetch_unproven);
    stats->engine.promised = fl_admission_promised(engine);
    stats->engine.replay_on = engine->options.replay;
    stats->engine.scarce = engine->memory.scarce;
    stats->engine.huge_scarce = engine->memory.huge_scarce;
    stats->engine.replay_paused = stats->engine.scarce || stats->engine.huge_scarce;
    fl_vms_each(&engine->vms, count_lacking, &stats->engine.lacking);
}

// Unknown where there is none, or where /proc does not show it.
static void look_at_process(pid_t pid, struct fl_process_usage *usage)
{
    if (pid > 0 && fl_process_usage(pid, usage) == 0)
        return;
    *usage = (struct fl_process_usage){.cpu_ns = FL_STAT_UNKNOWN,
                                       .resident = FL_STAT_UNKNOWN,
                                       .virtual = FL_STAT_UNKNOWN,
                                       .descriptors = FL_STAT_UNKNOWN,
                                       .limit = FL_STAT_UNKNOWN,
                                       .started_ns = FL_STAT_UNKNOWN};
}

static void look_at_keeper(const struct fl_engine *engine, struct fl_stats *stats)
{
    json_int_t pid = 0;
    json_int_t generation = 0;
    json_int_t stall = 0;
    json_t *news = json_loads(fl_keeper_link_news(engine->keeper_link), JSON_DECODE_ANY, NULL);
    stats->keeper.up = json_unpack(news, "{s:I, s:I, s?I}", "pid", &pid, "generation", &generation,
                                   "stall_us", &stall) == 0;
    json_decref(news);
    stats->keeper.generation = (uint64_t)generation;
    stats->keeper.deaths = engine->counts->deaths;
    stats->keeper.stall_ns = stall > 0 ? (uint64_t)stall * FL_NS_PER_US : FL_STAT_UNKNOWN;
    look_at_process((pid_t)pid, &stats->keeper_process);
    stats->keeper.stopped =
        stats->keeper_process.state == 'T' || stats->keeper_process.state == 't';
}

void fl_stats_collect(struct fl_engine *engine, bool draining, struct fl_stats *ret_stats)
{
    memset(ret_stats, 0, sizeof(*ret_stats));
    fl_totals_note(engine);
    for (unsigned i = 0; i < fl_engine_workers(engine); i++)
        add_worker(ret_stats, fl_engine_worker(engine, i)->shard.stats);
    look_at_engine(engine, ret_stats);
    look_at_keeper(engine, ret_stats);
    ret_stats->engine.draining = draining;
    ret_stats->cache = fl_cache_stats(engine->cache);
    ret_stats->ends = engine->counts->ends;
    ret_stats->pool = fl_huge_pool_read();
    ret_stats->lanes = fl_lanes_now(engine);
    ret_stats->recordings = fl_recording_orders_now(&engine->recordings);
    ret_stats->templates = fl_templates_stats(engine->templates);
    ret_stats->files = fl_files_stats(engine->files);
    ret_stats->memory.allocated = allocated();
    ret_stats->memory.descriptors = fl_descriptors_used();
    ret_stats->memory.descriptors_limit = fl_descriptors_limit();
    look_at_process(getpid(), &ret_stats->engine_process);
    ret_stats->store = fl_store_space_now(engine->space);
    fl_image_counts_show(&engine->image_counting, ret_stats->image);
    fl_totals_add_carried(engine, ret_stats);
    for (unsigned i = 0; i < FL_CAPTURE_BLAMES; i++)
        ret_stats->captures_failed += ret_stats->captured.failed[i];
}
