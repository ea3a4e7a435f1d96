// SPDX-License-Identifier: Apache-2.0
#include "engine/control/status.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/descriptors.h"
#include "engine/control/stats.h"
#include "engine/control/status_lanes.h"
#include "engine/link/keeper_link.h"
#include "engine/template/templates.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"

static const char *phase_name(const struct fl_vm *vm)
{
    if (!vm->image)
        return "refused";
    switch (atomic_load(&vm->phase)) {
    case FL_VM_SERVING:
        return "serving";
    case FL_VM_RELEASING:
        return "releasing";
    case FL_VM_GONE:
        break;
    }
    return "gone";
}

static json_int_t number(const fl_counter *counter)
{
    return (json_int_t)fl_counter_get(counter);
}

static const char *replay_name(const struct fl_replay *replay)
{
    switch (atomic_load(&replay->state)) {
    case FL_REPLAY_NONE:
        return "none";
    case FL_REPLAY_LOADING:
        return "loading";
    case FL_REPLAY_RUNNING:
        return "running";
    case FL_REPLAY_PAUSED:
        return "paused";
    case FL_REPLAY_DONE:
        return "done";
    case FL_REPLAY_ENDED:
        break;
    }
    return "ended";
}

static json_t *replay_of(const struct fl_replay *replay)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I}", "state", replay_name(replay), "total",
                     number(&replay->total), "pages", number(&replay->pages), "late",
                     number(&replay->late), "us",
                     (json_int_t)(fl_counter_get(&replay->ns) / FL_NS_PER_US));
}

// For how long there has been no memory for its pages.
static json_int_t lacking_ms(const struct fl_vm *vm)
{
    uint64_t since = atomic_load(&vm->shortage.since_ns);
    uint64_t now = fl_now();
    return since && since < now ? (json_int_t)((now - since) / FL_NS_PER_MS) : 0;
}

static void add_vm(void *arg, const struct fl_vm *vm)
{
    const struct fl_vm_counters *counters = &vm->state->counters;
    uint64_t bytes = vm->state->layout.pages << vm->page_shift;
    json_array_append_new(
        arg,
        json_pack(
            "{s:I, s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:o, s:o, "
            "s:o}",
            "id", (json_int_t)vm->id, "image", vm->state->image, "pid", (json_int_t)vm->state->pid,
            "state", phase_name(vm), "page_size", (json_int_t)fl_vm_page_bytes(vm), "pages",
            (json_int_t)(bytes >> FL_PAGE_SHIFT), "installed", number(&counters->installed),
            "zeroed", number(&counters->zeroed), "removed", number(&counters->removed), "poisoned",
            number(&counters->poisoned), "faults", number(&counters->faults), "lacking_ms",
            lacking_ms(vm), "lacked", number(&vm->shortage.refused), "template",
            (vm->state->flags & FL_VM_STATE_TEMPLATE) != 0, "recorded", fl_vm_is_recorded(vm),
            "replay", replay_of(&vm->replay), "lane", fl_lane_json(vm), "memory_limit",
            fl_limit_json(vm)));
}

static double quantile_us(const struct fl_stats *stats, double share)
{
    return (double)fl_histogram_quantile(&stats->latency_ns, share) / (double)FL_NS_PER_US;
}

static json_t *latency(const struct fl_stats *stats)
{
    return json_pack("{s:I, s:f, s:f, s:f, s:f}", "count",
                     (json_int_t)fl_histogram_total(&stats->latency_ns), "p50",
                     quantile_us(stats, 0.5), "p90", quantile_us(stats, 0.9), "p99",
                     quantile_us(stats, 0.99), "max", quantile_us(stats, 1));
}

static json_t *faults(const struct fl_stats *stats)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "read",
                     (json_int_t)stats->faults, "installed", (json_int_t)stats->installed, "zeroed",
                     (json_int_t)stats->zeroed, "poisoned", (json_int_t)stats->poisoned,
                     "duplicates", (json_int_t)stats->duplicates, "write_protect",
                     (json_int_t)stats->write_protect, "minor", (json_int_t)stats->minor, "parked",
                     (json_int_t)stats->parked, "oldest_wait_ms",
                     (json_int_t)(stats->oldest_wait_ns / FL_NS_PER_MS));
}

static json_t *pages(const struct fl_stats *stats)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "copied", (json_int_t)stats->copied_pages,
                     "zeroed", (json_int_t)stats->zeroed_pages, "removed",
                     (json_int_t)stats->removed_pages, "dropped", (json_int_t)stats->dropped_pages,
                     "ahead", (json_int_t)stats->ahead_pages, "ahead_unproven",
                     (json_int_t)stats->ahead_unproven_pages);
}

static json_t *ahead(const struct fl_cache_stats *cache)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "waiting", (json_int_t)cache->ahead_waiting,
                     "extents", (json_int_t)cache->ahead_extents, "bytes",
                     (json_int_t)cache->ahead_bytes, "frames", (json_int_t)cache->ahead_frames,
                     "errors", (json_int_t)cache->ahead_errors, "promoted",
                     (json_int_t)cache->promoted);
}

static json_t *cache(const struct fl_stats *stats)
{
    const struct fl_cache_stats *cache = &stats->cache;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "bytes",
                     (json_int_t)cache->bytes, "memory", (json_int_t)cache->memory, "limit",
                     (json_int_t)cache->limit, "frames", (json_int_t)cache->frames, "hits",
                     (json_int_t)stats->hits, "misses", (json_int_t)stats->misses, "reads",
                     (json_int_t)cache->reads, "read_errors", (json_int_t)cache->read_errors,
                     "failed", (json_int_t)cache->failed, "evictions",
                     (json_int_t)cache->evictions);
}

static json_t *keeper(const struct fl_engine *engine)
{
    json_t *news = json_loads(fl_keeper_link_news(engine->keeper_link), JSON_DECODE_ANY, NULL);
    return news ? news : json_null();
}

static json_t *recordings(const struct fl_engine *engine)
{
    struct fl_recording_orders_now now = fl_recording_orders_now(&engine->recordings);
    return json_pack("{s:i, s:i, s:I}", "orders", (int)now.orders, "vms", (int)now.vms, "pages",
                     (json_int_t)now.pages);
}

static json_t *replay(const struct fl_engine *engine, const struct fl_stats *stats)
{
    return json_pack("{s:b, s:I, s:I, s:I, s:I, s:b, s:b}", "on", engine->options.replay, "running",
                     (json_int_t)stats->replaying, "done", (json_int_t)stats->replays, "pages",
                     (json_int_t)stats->replayed_pages, "late", (json_int_t)stats->replay_late,
                     "scarce", engine->memory.scarce, "huge_scarce", engine->memory.huge_scarce);
}

// What there is of the whole engine, in single numbers and words.
static json_t *engine_itself(const struct fl_engine *engine, const struct fl_stats *stats)
{
    return json_pack("{s:s, s:i, s:i, s:f, s:i, s:I, s:I, s:s}", "version", FAULTLINE_VERSION,
                     "pid", (int)getpid(), "workers", (int)stats->workers, "uptime_seconds",
                     (double)(fl_now() - engine->started_ns) / (double)FL_NS_PER_S, "vms",
                     (int)stats->vms, "attached", (json_int_t)stats->attached, "refused",
                     (json_int_t)stats->refused, "io", stats->cache.io);
}

static json_t *memory(const struct fl_stats *stats)
{
    return json_pack("{s:I, s:I}", "allocated", (json_int_t)stats->allocated_bytes, "resident",
                     (json_int_t)stats->resident_bytes);
}

static json_t *shortage(const struct fl_stats *stats)
{
    return json_pack("{s:i, s:I, s:I, s:I}", "vms", (int)stats->lacking, "huge_pages",
                     (json_int_t)stats->short_huge, "memory", (json_int_t)stats->short_memory,
                     "found_missing", (json_int_t)stats->found_missing);
}

static json_t *huge_pages(const struct fl_stats *stats)
{
    const struct fl_huge_pool *pool = &stats->pool;
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "total", (json_int_t)pool->total, "free",
                     (json_int_t)pool->free, "reserved", (json_int_t)pool->reserved, "surplus",
                     (json_int_t)pool->surplus, "promised", (json_int_t)stats->promised);
}

static json_t *ends(const struct fl_ends *ends)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "released", (json_int_t)ends->released, "poisoned",
                     (json_int_t)ends->poisoned, "poisoned_pages", (json_int_t)ends->poisoned_pages,
                     "killed", (json_int_t)ends->killed);
}

static json_t *descriptors(void)
{
    return json_pack("{s:i, s:i}", "used", (int)fl_descriptors_used(), "limit",
                     (int)fl_descriptors_limit());
}

static json_t *vm_list(struct fl_engine *engine)
{
    json_t *vms = json_array();
    fl_vms_each(&engine->vms, add_vm, vms);
    return vms;
}

static json_t *build(struct fl_engine *engine, const struct fl_stats *stats)
{
    json_t *status = engine_itself(engine, stats);
    json_object_set_new(status, "faults", faults(stats));
    json_object_set_new(status, "pages", pages(stats));
    json_object_set_new(status, "latency_us", latency(stats));
    json_object_set_new(status, "cache", cache(stats));
    json_object_set_new(status, "ahead", ahead(&stats->cache));
    json_object_set_new(status, "memory", memory(stats));
    json_object_set_new(status, "shortage", shortage(stats));
    json_object_set_new(status, "ended", ends(&engine->ends));
    json_object_set_new(status, "huge_pages", huge_pages(stats));
    json_object_set_new(status, "replay", replay(engine, stats));
    json_object_set_new(status, "lanes", fl_lanes_json(engine));
    json_object_set_new(status, "recordings", recordings(engine));
    json_object_set_new(status, "templates", fl_templates_json(engine->templates));
    json_object_set_new(status, "keeper", keeper(engine));
    json_object_set_new(status, "descriptors", descriptors());
    json_object_set_new(status, "degraded", fl_degraded_json(engine));
    json_object_set_new(status, "vm_list", vm_list(engine));
    return status;
}

char *fl_status_json(struct fl_engine *engine, bool draining)
{
    struct fl_stats *stats = malloc(sizeof(*stats));
    if (!stats)
        return NULL;
    fl_stats_collect(engine, stats);
    json_t *status = build(engine, stats);
    free(stats);
    if (status)
        json_object_set_new(status, "draining", json_boolean(draining));
    char *text = status ? json_dumps(status, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(status);
    return text;
}
