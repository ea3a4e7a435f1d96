// SPDX-License-Identifier: Apache-2.0
#include "engine/control/status.h"

#include <faultline_version.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/accept/captures.h"
#include "engine/base/clock.h"
#include "engine/control/capture_name.h"
#include "engine/control/collect.h"
#include "engine/control/counters.h"
#include "engine/control/stats.h"
#include "engine/control/status_lanes.h"
#include "engine/image/store_space.h"
#include "engine/link/keeper_link.h"
#include "engine/template/templates.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"

static const char *phase_name(const struct fl_vm *vm)
{
    if (vm->inherited && (!vm->complete || vm->held))
        return "adopting"; // its image is being opened, or a thread of another engine has it still
    if (!vm->image)
        return fl_vm_refused(vm) ? "refused" : "lost";
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

static const char *collapse_name(const struct fl_collapse *collapse)
{
    switch (atomic_load(&collapse->state)) {
    case FL_COLLAPSE_OFF:
        return "off";
    case FL_COLLAPSE_WAITING:
        return "waiting";
    case FL_COLLAPSE_RUNNING:
        return "running";
    case FL_COLLAPSE_PAUSED:
        return "paused";
    case FL_COLLAPSE_DONE:
        return "done";
    case FL_COLLAPSE_REFUSED:
        return "refused";
    case FL_COLLAPSE_ENDED:
        break;
    }
    return "ended";
}

static json_t *huge_of(const struct fl_collapse *collapse)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "state", collapse_name(collapse),
                     "wanted", number(&collapse->wanted), "huge", number(&collapse->huge), "left",
                     number(&collapse->left), "split", number(&collapse->split), "filled",
                     number(&collapse->filled), "zeros", number(&collapse->zeros), "us",
                     (json_int_t)(fl_counter_get(&collapse->ns) / FL_NS_PER_US));
}

// For how long there has been no memory for its pages.
static json_int_t lacking_ms(const struct fl_vm *vm)
{
    uint64_t since = atomic_load(&vm->shortage.since_ns);
    uint64_t now = fl_now();
    return since && since < now ? (json_int_t)((now - since) / FL_NS_PER_MS) : 0;
}

// Of its faults that have ended, since this engine serves it.
static json_t *waits_of(const struct fl_vm *vm)
{
    const struct fl_vm_waits *waits = &vm->waits;
    return json_pack("{s:I, s:I, s:I, s:I}", "now", number(&waits->now), "answered",
                     number(&waits->answered), "us",
                     (json_int_t)(fl_counter_get(&waits->ns) / FL_NS_PER_US), "most_us",
                     (json_int_t)(fl_counter_get(&waits->most_ns) / FL_NS_PER_US));
}

struct vm_list {
    json_t *list;
    const struct fl_captures *captures;
};

static void add_vm(void *arg, const struct fl_vm *vm)
{
    const struct vm_list *vms = arg;
    const struct fl_vm_counters *counters = &vm->state->counters;
    uint64_t bytes = vm->state->layout.pages << vm->page_shift;
    json_array_append_new(
        vms->list,
        json_pack(
            "{s:I, s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:s, s:o, "
            "s:o, s:o, s:o, s:o, s:I}",
            "id", (json_int_t)vm->id, "image", vm->state->image, "pid", (json_int_t)vm->state->pid,
            "state", phase_name(vm), "page_size", (json_int_t)fl_vm_page_bytes(vm), "pages",
            (json_int_t)(bytes >> FL_PAGE_SHIFT), "installed", number(&counters->installed),
            "zeroed", number(&counters->zeroed), "removed", number(&counters->removed), "poisoned",
            number(&counters->poisoned), "faults", number(&counters->faults), "lacking_ms",
            lacking_ms(vm), "lacked", number(&vm->shortage.refused), "template",
            (vm->state->flags & FL_VM_STATE_TEMPLATE) != 0, "recorded", fl_vm_is_recorded(vm),
            "capture", fl_capture_phase_name(fl_captures_find(vms->captures, vm->id)), "waits",
            waits_of(vm), "replay", replay_of(&vm->replay), "lane", fl_lane_json(vm),
            "memory_limit", fl_limit_json(vm), "huge", huge_of(&vm->collapse), "first_pages",
            number(&vm->first_pages.pages)));
}

static double quantile_us(const struct fl_histogram *all, double share)
{
    return (double)fl_histogram_quantile(all, share) / (double)FL_NS_PER_US;
}

// Of all stages.
static json_t *latency(const struct fl_stats *stats)
{
    struct fl_histogram *all = calloc(1, sizeof(*all));
    if (!all)
        return NULL;
    for (unsigned stage = 0; stage < FL_STAGES; stage++)
        fl_histogram_merge(all, &stats->workers.latency_ns[stage]);
    json_t *object =
        json_pack("{s:I, s:f, s:f, s:f, s:f}", "count", (json_int_t)fl_histogram_total(all), "p50",
                  quantile_us(all, 0.5), "p90", quantile_us(all, 0.9), "p99",
                  quantile_us(all, 0.99), "max", quantile_us(all, 1));
    free(all);
    return object;
}

// An object of the status by its key, made if there is none. NULL where something else stands, as
// null does for a keeper that there is not.
static json_t *section(json_t *status, const char *key)
{
    json_t *there = json_object_get(status, key);
    if (there)
        return json_is_object(there) ? there : NULL;
    json_t *made = json_object();
    return json_object_set_new(status, key, made) == 0 ? made : NULL;
}

static json_t *row_json(const struct fl_counter_row *row, const struct fl_stats *stats)
{
    uint64_t value = fl_counter_row_value(row, stats);
    if (value == FL_STAT_UNKNOWN)
        return json_null();
    if (row->shape == FL_SHAPE_BOOL)
        return json_boolean(value != 0);
    return json_integer((json_int_t)(row->shape == FL_SHAPE_NS ? value / FL_NS_PER_MS : value));
}

// The paths of keys are of one or two parts.
static void add_row(json_t *status, const struct fl_counter_row *row, const struct fl_stats *stats)
{
    char first[64];
    const char *dot = strchr(row->json, '.');
    if (!dot) {
        json_object_set_new(status, row->json, row_json(row, stats));
        return;
    }
    snprintf(first, sizeof(first), "%.*s", (int)(dot - row->json), row->json);
    json_t *object = section(status, first);
    if (object)
        json_object_set_new(object, dot + 1, row_json(row, stats));
}

static json_t *keeper(const struct fl_engine *engine)
{
    json_t *news = json_loads(fl_keeper_link_news(engine->keeper_link), JSON_DECODE_ANY, NULL);
    return news ? news : json_null();
}

// What of the whole engine is no row of the table of counters.
static json_t *engine_itself(const struct fl_engine *engine, const struct fl_stats *stats)
{
    return json_pack("{s:s, s:i, s:f, s:s}", "version", FAULTLINE_VERSION, "pid", (int)getpid(),
                     "uptime_seconds",
                     (double)(fl_now() - engine->started_ns) / (double)FL_NS_PER_S, "io",
                     stats->cache.io);
}

// The configuration file, and the options that were changed in it and wait for a restart.
static json_t *config_json(const struct fl_engine_options *options)
{
    json_t *waits = json_array();
    for (const char *name = options->config_waits; name && *name;) {
        size_t length = strcspn(name, " ");
        json_array_append_new(waits, json_stringn(name, length));
        name += length + strspn(name + length, " ");
    }
    return json_pack("{s:s?, s:o}", "file", options->config, "waits_for_restart", waits);
}

static json_t *vm_list(struct fl_engine *engine)
{
    struct vm_list vms = {json_array(), engine->captures};
    fl_vms_each(&engine->vms, add_vm, &vms);
    return vms.list;
}

// Of the thread that was started with the worker, which may serve a lane's VM now; 0 if it has
// ended.
static uint64_t cpu_ns(const struct fl_worker *worker)
{
    clockid_t clock;
    struct timespec time;
    if (pthread_getcpuclockid(worker->own.pthread, &clock) != 0 || clock_gettime(clock, &time) != 0)
        return 0;
    return (uint64_t)time.tv_sec * FL_NS_PER_S + (uint64_t)time.tv_nsec;
}

// The threads that serve faults: lanes are in `lanes`.
static json_t *worker_list(struct fl_engine *engine)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < engine->worker_count; i++) {
        const struct fl_worker *worker = fl_engine_worker(engine, i);
        const struct fl_shard_stats *stats = worker->shard.stats;
        json_array_append_new(
            list, json_pack("{s:I, s:I, s:I, s:I}", "vms", (json_int_t)atomic_load(&worker->vms),
                            "faults", number(&stats->faults), "parked", number(&stats->parked),
                            "cpu_us", (json_int_t)(cpu_ns(worker) / FL_NS_PER_US)));
    }
    return list;
}

static json_t *image_list(const struct fl_stats *stats)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < FL_IMAGE_ROWS_ALL; i++) {
        const struct fl_image_shown *shown = &stats->image[i];
        bool others = i == FL_IMAGE_OTHERS;
        if (!*shown->name ||
            (others && shown->vms == 0 && fl_counter_get(&shown->counts.attached) == 0 &&
             fl_counter_get(&shown->counts.refused) == 0))
            continue;
        json_array_append_new(
            list, json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:I}", "image", shown->name, "vms",
                            (int)shown->vms, "attached", number(&shown->counts.attached), "refused",
                            number(&shown->counts.refused), "faults", number(&shown->counts.faults),
                            "late", number(&shown->counts.late), "poisoned",
                            number(&shown->counts.poisoned)));
    }
    return list;
}

static json_t *build(struct fl_engine *engine, const struct fl_stats *stats)
{
    json_t *status = engine_itself(engine, stats);
    if (!status)
        return NULL;
    json_object_set_new(status, "latency_us", latency(stats));
    json_object_set_new(status, "templates", fl_templates_json(engine->templates));
    json_object_set_new(status, "keeper", keeper(engine));
    json_object_set_new(status, "config", config_json(&engine->options));
    for (size_t i = 0; i < fl_counter_row_count; i++) {
        if (fl_counter_rows[i].json)
            add_row(status, &fl_counter_rows[i], stats);
    }
    const char *path = fl_store_space_path(engine->space);
    json_object_set_new(section(status, "store"), "path", path ? json_string(path) : json_null());
    json_object_set_new(status, "degraded", fl_degraded_json(&engine->degraded));
    json_object_set_new(status, "worker_list", worker_list(engine));
    json_object_set_new(status, "image_list", image_list(stats));
    json_object_set_new(status, "vm_list", vm_list(engine));
    return status;
}

char *fl_status_json(struct fl_engine *engine, bool draining)
{
    struct fl_stats *stats = malloc(sizeof(*stats));
    if (!stats)
        return NULL;
    fl_stats_collect(engine, draining, stats);
    json_t *status = build(engine, stats);
    free(stats);
    char *text = status ? json_dumps(status, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(status);
    return text;
}
