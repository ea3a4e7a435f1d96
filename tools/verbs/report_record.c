// SPDX-License-Identifier: Apache-2.0
//
// A record as JSON, into a struct report. It may come from anywhere: nothing in it is trusted.
#include <stdlib.h>
#include <string.h>

#include "tools/verbs/report.h"

// No server writes more: what looks for a share of all events takes time by their square.
enum { BUCKETS_MOST = 1024 };
#define PAGES_MOST ((uint64_t)1 << 36)
#define NUMBER_MOST ((json_int_t)1 << 62)

const struct report_kind report_cames[REPORT_CAMES] = {
    [REPORT_DEMAND] = {"demand", 'd', "demand", "a fault asked for the page"},
    [REPORT_NEIGHBOUR] = {"neighbour", 'n', "neighbour", "came with a page before it"},
    [REPORT_REPLAY] = {"replay", 'r', "replay", "came ahead of its touch, by the trace"},
    [REPORT_FILL] = {"fill", 'f', "fill", "came as all memory was filled"},
    [REPORT_ZERO] = {"zero", 'z', "zero", "zeros, whatever asked for them"},
    [REPORT_TEMPLATE] = {"template", 't', "template", "was in the VM's template"},
    [REPORT_OTHER] = {"other", 'o', "other", "was there before this history began"},
    [REPORT_FAILED] = {"failed", 'x', "failed", "could not be had"},
    [REPORT_NEVER] = {"never", '.', "never", "nothing has brought it"},
};
const struct report_kind report_waiteds[REPORT_WAITEDS] = {
    [REPORT_CACHED] = {"cached", 0, "cached", "its bytes were there, or it is zeros"},
    [REPORT_READ] = {"read", 0, "read", "waited for storage"},
    [REPORT_REMOVE] = {"remove", 0, "remove", "waited while the guest gave memory back"},
    [REPORT_MEMORY] = {"memory", 0, "memory", "waited for memory of the host"},
};

// --- numbers and texts ---

// A problem that was found stays; what comes later is read all the same, as zeros.
struct reading {
    const char *wrong;
};

static void wrong(struct reading *reading, const char *what)
{
    if (!reading->wrong)
        reading->wrong = what;
}

static uint64_t number_of(struct reading *reading, const json_t *value)
{
    json_int_t number = json_integer_value(value);
    if (json_is_integer(value) && number >= 0 && number < NUMBER_MOST)
        return (uint64_t)number;
    wrong(reading, "lacks a number, or has one that is none");
    return 0;
}

static uint64_t number(struct reading *reading, const json_t *object, const char *key)
{
    return number_of(reading, json_object_get(object, key));
}

static const char *text(struct reading *reading, const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    if (!value)
        wrong(reading, "lacks a text");
    return value ? value : "";
}

static void *room(struct reading *reading, size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size);
    if (!memory)
        wrong(reading, "is too large for the memory of this host");
    return memory;
}

static enum report_waited waited_of(struct reading *reading, const json_t *value)
{
    const char *name = json_string_value(value);
    for (unsigned i = 0; name && i < REPORT_WAITEDS; i++) {
        if (strcmp(name, report_waiteds[i].name) == 0)
            return (enum report_waited)i;
    }
    wrong(reading, "has a fault that waited for something unknown");
    return REPORT_CACHED;
}

// --- buckets and faults ---

static void read_buckets(struct reading *reading, const json_t *list, struct report_buckets *to)
{
    size_t i;
    const json_t *value;
    if (!json_is_array(list))
        wrong(reading, "lacks a list of buckets");
    if (json_array_size(list) > BUCKETS_MOST) {
        wrong(reading, "has more buckets than a server writes");
        return;
    }
    to->bucket = room(reading, json_array_size(list), sizeof(*to->bucket));
    json_array_foreach(list, i, value)
    {
        if (!to->bucket)
            return;
        struct report_bucket *bucket = &to->bucket[to->count++];
        bucket->from = (double)number_of(reading, json_array_get(value, 0));
        bucket->to = (double)number_of(reading, json_array_get(value, 1));
        bucket->count = number_of(reading, json_array_get(value, 2));
        to->sum += bucket->count;
        if (bucket->to <= bucket->from || (i > 0 && bucket->from < to->bucket[to->count - 2].to))
            wrong(reading, "has buckets that are out of order");
    }
}

static void read_latency(struct reading *reading, const json_t *record, struct report *report)
{
    const json_t *all = json_object_get(record, "latency");
    for (unsigned i = 0; i < REPORT_WAITEDS; i++) {
        const json_t *one = json_object_get(all, report_waiteds[i].name);
        struct report_latency *latency = &report->latency[i];
        latency->sum_ns = number(reading, one, "sum_ns");
        latency->max_ns = number(reading, one, "max_ns");
        read_buckets(reading, json_object_get(one, "buckets"), &latency->buckets);
    }
}

static void read_slowest(struct reading *reading, const json_t *list, struct report_faults *to)
{
    size_t i;
    const json_t *value;
    to->fault = room(reading, json_array_size(list), sizeof(*to->fault));
    json_array_foreach(list, i, value)
    {
        if (!to->fault)
            return;
        to->fault[to->count++] = (struct report_fault){
            .at_us = number(reading, value, "at_us"),
            .page = number(reading, value, "page"),
            .took_ns = number(reading, value, "took_ns"),
            .waited = waited_of(reading, json_object_get(value, "waited")),
        };
    }
}

static void read_log(struct reading *reading, const json_t *log, struct report_faults *to)
{
    const json_t *at = json_object_get(log, "at_us");
    const json_t *page = json_object_get(log, "page");
    const json_t *took = json_object_get(log, "took_ns");
    const json_t *waited = json_object_get(log, "waited");
    size_t count = json_array_size(at);
    if (!json_is_array(at) || json_array_size(page) != count || json_array_size(took) != count ||
        json_array_size(waited) != count) {
        wrong(reading, "lacks the log of faults, or has one whose columns differ in length");
        return;
    }
    to->fault = room(reading, count, sizeof(*to->fault));
    for (size_t i = 0; to->fault && i < count; i++)
        to->fault[to->count++] = (struct report_fault){
            .at_us = number_of(reading, json_array_get(at, i)),
            .page = number_of(reading, json_array_get(page, i)),
            .took_ns = number_of(reading, json_array_get(took, i)),
            .waited = waited_of(reading, json_array_get(waited, i)),
        };
}

// --- the map ---

static int came_of(char letter)
{
    for (int i = 0; i < REPORT_CAMES; i++) {
        if (report_cames[i].letter == letter)
            return i;
    }
    return -1;
}

static void map_add(struct report *report, unsigned came, uint64_t page, uint64_t pages)
{
    report->total[came] += pages;
    while (pages > 0) {
        uint64_t left = report->cell_pages - page % report->cell_pages;
        uint64_t here = left < pages ? left : pages;
        report->cell[page / report->cell_pages].pages[came] += (uint32_t)here;
        page += here;
        pages -= here;
    }
}

static void read_map(struct reading *reading, const char *map, struct report *report)
{
    uint64_t page = 0;
    while (*map) {
        int came = came_of(*map++);
        uint64_t pages = 0;
        size_t digits = strspn(map, "0123456789");
        for (size_t i = 0; i < digits && i < 12; i++)
            pages = pages * 10 + (uint64_t)(map[i] - '0');
        map += digits;
        pages = digits > 0 ? pages : 1;
        if (came < 0 || digits > 12 || pages == 0 || pages > report->pages - page) {
            wrong(reading, "has a map that is damaged");
            return;
        }
        map_add(report, (unsigned)came, page, pages);
        page += pages;
    }
    if (page != report->pages)
        wrong(reading, "has a map of another number of pages");
}

// As few pages a cell as there is room for; a power of two, so that cells begin at round addresses.
static void make_cells(struct reading *reading, struct report *report)
{
    report->cell_pages = 1;
    while ((report->pages + report->cell_pages - 1) / report->cell_pages > REPORT_CELLS)
        report->cell_pages *= 2;
    report->cells = (size_t)((report->pages + report->cell_pages - 1) / report->cell_pages);
    report->cell = room(reading, report->cells, sizeof(*report->cell));
}

const struct report_cell *report_cell_of(const struct report *report, uint64_t page)
{
    return page < report->pages ? &report->cell[page / report->cell_pages] : NULL;
}

// --- all of it ---

static void read_vm(struct reading *reading, const json_t *record, struct report *report)
{
    const json_t *counters = json_object_get(record, "counters");
    report->version = text(reading, record, "version");
    report->host = text(reading, record, "host");
    report->image = text(reading, record, "image");
    report->since = text(reading, record, "since");
    report->vm = number(reading, record, "vm");
    report->pid = number(reading, record, "pid");
    report->page_size = number(reading, record, "page_size");
    report->pages = number(reading, record, "pages");
    report->begun = number(reading, record, "begun");
    report->age_us = number(reading, record, "age_us");
    report->running = json_is_true(json_object_get(record, "running"));
    report->messages = number(reading, counters, "faults");
    report->installed = number(reading, counters, "installed");
    report->zeroed = number(reading, counters, "zeroed");
    report->poisoned = number(reading, counters, "poisoned");
    report->removed = number(reading, counters, "removed");
    if (report->page_size != 4096 && report->page_size != 2 << 20)
        wrong(reading, "has pages of a size that no VM has");
    if (report->pages == 0 || report->pages > PAGES_MOST)
        wrong(reading, "is of a VM of no, or of too much memory");
}

static void read_faults(struct reading *reading, const json_t *record, struct report *report)
{
    const json_t *faults = json_object_get(record, "faults");
    const json_t *quiet = json_object_get(faults, "quiet_us");
    report->faults = number(reading, faults, "count");
    report->logged = number(reading, faults, "logged");
    report->last_us = number(reading, faults, "last_us");
    report->is_quiet = json_is_integer(quiet);
    report->quiet_us = report->is_quiet ? number_of(reading, quiet) : 0;
    read_buckets(reading, json_object_get(faults, "over_time"), &report->over_time);
    for (unsigned i = 0; i < REPORT_NEVER; i++)
        read_buckets(reading,
                     json_object_get(json_object_get(record, "came"), report_cames[i].name),
                     &report->came[i]);
    read_latency(reading, record, report);
    read_slowest(reading, json_object_get(record, "slowest"), &report->slowest);
    read_log(reading, json_object_get(record, "log"), &report->log);
}

const char *report_read(const json_t *record, struct report *ret_report)
{
    struct reading reading = {NULL};
    *ret_report = (struct report){.version = ""};
    const json_t *version = json_object_get(record, "faultline_history");
    if (!json_is_integer(version))
        return "is not a record of 'faultline report --save'";
    if (json_integer_value(version) != REPORT_RECORD)
        return "is of another version of the record than this command knows, which is 1";
    read_vm(&reading, record, ret_report);
    if (reading.wrong)
        return reading.wrong;
    read_faults(&reading, record, ret_report);
    make_cells(&reading, ret_report);
    if (!reading.wrong)
        read_map(&reading, text(&reading, record, "map"), ret_report);
    return reading.wrong;
}

void report_free(struct report *report)
{
    free(report->over_time.bucket);
    for (unsigned i = 0; i < REPORT_WAITEDS; i++)
        free(report->latency[i].buckets.bucket);
    for (unsigned i = 0; i < REPORT_NEVER; i++)
        free(report->came[i].bucket);
    free(report->slowest.fault);
    free(report->log.fault);
    free(report->cell);
}
