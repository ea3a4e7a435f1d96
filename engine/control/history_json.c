// SPDX-License-Identifier: Apache-2.0
#include "engine/control/history_json.h"

#include <faultline_version.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/template/template.h"
#include "engine/vm/history.h"

enum { LOG_AT_ONCE = 4096, MAP_AT_ONCE = 1 << 18, HOST_BYTES = 256 };

static const char *const came_names[FL_CAME_KINDS] = {
    [FL_CAME_NEVER] = "never",       [FL_CAME_DEMAND] = "demand", [FL_CAME_NEIGHBOUR] = "neighbour",
    [FL_CAME_REPLAY] = "replay",     [FL_CAME_FILL] = "fill",     [FL_CAME_ZERO] = "zero",
    [FL_CAME_TEMPLATE] = "template", [FL_CAME_OTHER] = "other",   [FL_CAME_FAILED] = "failed",
};
static const char came_letters[FL_CAME_KINDS] = {
    [FL_CAME_NEVER] = '.',    [FL_CAME_DEMAND] = 'd', [FL_CAME_NEIGHBOUR] = 'n',
    [FL_CAME_REPLAY] = 'r',   [FL_CAME_FILL] = 'f',   [FL_CAME_ZERO] = 'z',
    [FL_CAME_TEMPLATE] = 't', [FL_CAME_OTHER] = 'o',  [FL_CAME_FAILED] = 'x',
};
static const char *const waited_names[FL_WAITED_KINDS] = {
    [FL_WAITED_NOT] = "cached",
    [FL_WAITED_READ] = "read",
    [FL_WAITED_REMOVE] = "remove",
    [FL_WAITED_MEMORY] = "memory",
};

static json_int_t us_of(uint64_t ns)
{
    return (json_int_t)(ns / FL_NS_PER_US);
}

static uint64_t age_ns(const struct fl_vm_history *history)
{
    return (history->vm ? fl_now() : history->ended_ns) - history->begun_ns;
}

json_t *fl_history_json_line(const struct fl_vm_history *history)
{
    return json_pack("{s:I, s:s, s:I, s:b, s:I, s:I, s:I, s:I}", "vm", (json_int_t)history->vm_id,
                     "image", history->image, "pid", (json_int_t)history->pid, "running",
                     history->vm != NULL, "begun", (json_int_t)history->begun_s, "age_us",
                     us_of(age_ns(history)), "faults", (json_int_t)fl_counter_get(&history->faults),
                     "bytes", (json_int_t)history->bytes);
}

// --- the head ---

// [FROM, TO, COUNT] in nanoseconds, of all that is not empty; TO is not in it.
static json_t *buckets(const struct fl_histogram *histogram)
{
    json_t *list = json_array();
    uint64_t from = 0;
    for (unsigned i = 0; i < FL_HISTOGRAM_BUCKETS; i++) {
        uint64_t count = fl_counter_get(&histogram->count[i]);
        uint64_t end = fl_histogram_bucket_end(i) + 1;
        if (count > 0)
            json_array_append_new(
                list, json_pack("[I, I, I]", (json_int_t)from, (json_int_t)end, (json_int_t)count));
        from = end;
    }
    return list;
}

static json_t *latency(const struct fl_vm_history *history)
{
    json_t *object = json_object();
    for (unsigned i = 0; i < FL_WAITED_KINDS; i++) {
        const struct fl_histogram *took = &history->took_ns[i];
        json_object_set_new(
            object, waited_names[i],
            json_pack("{s:I, s:I, s:I, s:o}", "count", (json_int_t)fl_histogram_total(took),
                      "max_ns", (json_int_t)fl_counter_get(&took->max), "sum_ns",
                      (json_int_t)fl_counter_get(&took->sum), "buckets", buckets(took)));
    }
    return object;
}

static json_t *came(const struct fl_vm_history *history)
{
    json_t *object = json_object();
    for (unsigned i = FL_CAME_NEVER + 1; i < FL_CAME_KINDS; i++)
        json_object_set_new(object, came_names[i], buckets(&history->came_ns[i]));
    return object;
}

static json_t *slowest(const struct fl_vm_history *history)
{
    struct fl_history_fault faults[FL_HISTORY_SLOWEST];
    unsigned count = fl_vm_history_slowest(history, faults);
    json_t *list = json_array();
    for (unsigned i = 0; i < count; i++)
        json_array_append_new(
            list, json_pack("{s:I, s:I, s:I, s:s}", "at_us", us_of(faults[i].at_ns), "page",
                            (json_int_t)faults[i].page, "took_ns", (json_int_t)faults[i].took_ns,
                            "waited", waited_names[faults[i].waited]));
    return list;
}

static json_int_t number(const fl_counter *counter)
{
    return (json_int_t)fl_counter_get(counter);
}

// Of the VM's whole life, whichever engine served it.
static json_t *counters(const struct fl_vm_history *history)
{
    const struct fl_vm_counters *all =
        history->vm ? &history->vm->state->counters : &history->counters;
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "faults", number(&all->faults), "installed",
                     number(&all->installed), "zeroed", number(&all->zeroed), "poisoned",
                     number(&all->poisoned), "removed", number(&all->removed));
}

static json_t *faults(const struct fl_vm_history *history)
{
    uint64_t quiet = 0;
    bool is_quiet = fl_vm_history_quiet(history, &quiet);
    return json_pack("{s:I, s:I, s:I, s:o, s:o}", "count", number(&history->faults), "logged",
                     (json_int_t)atomic_load_explicit(&history->logged, memory_order_acquire),
                     "last_us", us_of(fl_counter_get(&history->last_ns)), "quiet_us",
                     is_quiet ? json_integer(us_of(quiet)) : json_null(), "over_time",
                     buckets(&history->faults_ns));
}

json_t *fl_history_json_head(const struct fl_vm_history *history)
{
    char host[HOST_BYTES] = "";
    gethostname(host, sizeof(host) - 1);
    return json_pack(
        "{s:i, s:s, s:s, s:I, s:I, s:s, s:I, s:I, s:I, s:s, s:b, s:I, s:o, s:o, s:o, s:o, s:o}",
        "faultline_history", (int)FL_HISTORY_RECORD, "version", FAULTLINE_VERSION, "host", host,
        "vm", (json_int_t)history->vm_id, "pid", (json_int_t)history->pid, "image", history->image,
        "page_size", (json_int_t)(UINT64_C(1) << history->page_shift), "pages",
        (json_int_t)history->pages, "begun", (json_int_t)history->begun_s, "since",
        history->inherited ? "take-over" : "attach", "running", history->vm != NULL, "age_us",
        us_of(age_ns(history)), "counters", counters(history), "faults", faults(history), "latency",
        latency(history), "came", came(history), "slowest", slowest(history));
}

// --- the log ---

json_t *fl_history_json_log(const struct fl_vm_history *history, uint64_t from)
{
    uint64_t total = atomic_load_explicit(&history->logged, memory_order_acquire);
    uint64_t first = from < total ? from : total;
    uint64_t end = total - first > LOG_AT_ONCE ? first + LOG_AT_ONCE : total;
    json_t *at = json_array();
    json_t *page = json_array();
    json_t *took = json_array();
    json_t *waited = json_array();
    for (uint64_t i = first; i < end; i++) {
        const struct fl_history_fault *fault = &history->log[i];
        json_array_append_new(at, json_integer(us_of(fault->at_ns)));
        json_array_append_new(page, json_integer((json_int_t)fault->page));
        json_array_append_new(took, json_integer((json_int_t)fault->took_ns));
        json_array_append_new(waited, json_string(waited_names[fault->waited]));
    }
    return json_pack("{s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "vm", (json_int_t)history->vm_id,
                     "from", (json_int_t)first, "total", (json_int_t)total, "at_us", at, "page",
                     page, "took_ns", took, "waited", waited);
}

// --- the map ---

// A template's page is there for a VM that maps it, and no fault tells of its touch.
static enum fl_came page_came(const struct fl_vm_history *history, uint64_t page)
{
    const struct fl_vm *vm = history->vm;
    enum fl_came how = fl_vm_history_page(history, page);
    if (how == FL_CAME_NEVER && vm && vm->template &&
        fl_template_has(vm->template, fl_layout_image_page(&vm->state->layout, page)))
        return FL_CAME_TEMPLATE;
    return how;
}

static void put_run(FILE *out, enum fl_came how, uint64_t pages)
{
    fputc(came_letters[how], out);
    if (pages > 1)
        fprintf(out, "%" PRIu64, pages);
}

static void put_runs(FILE *out, const struct fl_vm_history *history, uint64_t page, uint64_t end)
{
    while (page < end) {
        enum fl_came how = page_came(history, page);
        uint64_t first = page++;
        while (page < end && page_came(history, page) == how)
            page++;
        put_run(out, how, page - first);
    }
}

char *fl_history_json_map(const struct fl_vm_history *history, uint64_t from)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    uint64_t first = from < history->pages ? from : history->pages;
    uint64_t end = history->pages - first > MAP_AT_ONCE ? first + MAP_AT_ONCE : history->pages;
    fprintf(out,
            "{\"vm\":%" PRIu64 ",\"from\":%" PRIu64 ",\"to\":%" PRIu64 ",\"pages\":%" PRIu64
            ",\"map\":\"",
            history->vm_id, first, end, history->pages);
    put_runs(out, history, first, end);
    fputs("\"}", out);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
