// SPDX-License-Identifier: Apache-2.0
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/resilience/stall.h"

static const char *const names[STALL_KINDS] = {
    "nothing",
    "SIGKILL of the engine",
    "upgrade",
    "keeper re-exec",
    "SIGKILL of the keeper, a new one",
    "read-ahead hangs",
    "read-ahead hangs, SIGKILL of the engine",
    "restart through the fd store",
    "SIGKILL of both, back from the store",
};
const char *const stall_key[STALL_KINDS] = {"none",        "engine_kill",   "upgrade",
                                            "keeper_exec", "keeper_kill",   "ahead_hangs",
                                            "ahead_kill",  "store_restart", "all_killed"};

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

// Returns the value of rank ceil(q * count), as the histogram does, in milliseconds.
static double quantile(const uint64_t *values, uint32_t count, double q)
{
    if (count == 0)
        return 0;
    uint64_t *sorted = calloc(count, sizeof(*sorted));
    if (sorted == NULL)
        return 0;
    memcpy(sorted, values, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), compare);
    uint32_t rank = (uint32_t)(q * count);
    if ((double)rank < q * count)
        rank++;
    double value = (double)sorted[rank > 0 ? rank - 1 : 0] / 1e6;
    free(sorted);
    return value;
}

static double touch_quantile(const struct stall_result *result, double q)
{
    return (double)bench_hist_quantile(&result->touches, q) / 1e6;
}

static void print_row(const struct stall_run *run, enum stall_kind kind)
{
    const struct stall_result *result = &run->result[kind];
    if (result->events == 0)
        return;
    printf("| %u | %s | %u | %u | %.1f | %.1f | %.1f | %llu | %.2f | %.2f | %.1f | %.0f |\n",
           run->options->vms, names[kind], result->events, result->disturbed,
           quantile(result->longest_ns, result->events, .5),
           quantile(result->longest_ns, result->events, .99),
           quantile(result->longest_ns, result->events, 1),
           (unsigned long long)result->touches.count, touch_quantile(result, .5),
           touch_quantile(result, .99), (double)result->touches.max_ns / 1e6,
           quantile(result->window_ns, result->events, .5));
}

void stall_print(const struct stall_run *run)
{
    printf("Milliseconds; %u touches a second in all, seed %llu\n\n", run->options->rate,
           (unsigned long long)run->options->seed);
    printf("| VMs | event | events | disturbed | longest of an event: p50 | p99 | max | touches | "
           "p50 | p99 | "
           "max | window |\n"
           "| --: | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n");
    for (enum stall_kind kind = STALL_NONE; kind < STALL_KINDS; kind++)
        print_row(run, kind);
    fflush(stdout);
}

static json_t *list(const uint64_t *values, uint32_t count)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < count; i++)
        json_array_append_new(array, json_real((double)(values[i] / 1000) / 1e3));
    return array;
}

static void put(json_t *object, const char *key, double value)
{
    json_object_set_new(object, key, json_real(value));
}

static json_t *longest_json(const struct stall_result *result)
{
    json_t *object = json_object();
    put(object, "p50", quantile(result->longest_ns, result->events, .5));
    put(object, "p99", quantile(result->longest_ns, result->events, .99));
    put(object, "max", quantile(result->longest_ns, result->events, 1));
    json_object_set_new(object, "events", list(result->longest_ns, result->events));
    return object;
}

static json_t *touches_json(const struct stall_result *result)
{
    json_t *object = json_object();
    json_object_set_new(object, "count", json_integer((json_int_t)result->touches.count));
    put(object, "p50", touch_quantile(result, .5));
    put(object, "p99", touch_quantile(result, .99));
    put(object, "p99.9", touch_quantile(result, .999));
    put(object, "max", (double)result->touches.max_ns / 1e6);
    return object;
}

static json_t *result_json(const struct stall_result *result)
{
    json_t *object = json_object();
    json_object_set_new(object, "disturbed", json_integer((json_int_t)result->disturbed));
    json_object_set_new(object, "longest_ms", longest_json(result));
    json_object_set_new(object, "touch_ms", touches_json(result));
    json_object_set_new(object, "window_ms", list(result->window_ns, result->events));
    return object;
}

bool stall_write(const struct stall_run *run, const char *path)
{
    const struct stall_options *options = run->options;
    json_t *report = json_object();
    json_object_set_new(report, "passed", json_boolean(!run->failed));
    json_object_set_new(report, "vms", json_integer((json_int_t)options->vms));
    json_object_set_new(report, "rate", json_integer((json_int_t)options->rate));
    json_object_set_new(report, "pages", json_integer((json_int_t)options->pages));
    json_object_set_new(report, "seed", json_integer((json_int_t)options->seed));
    for (enum stall_kind kind = STALL_NONE; kind < STALL_KINDS; kind++) {
        if (run->result[kind].events > 0)
            json_object_set_new(report, stall_key[kind], result_json(&run->result[kind]));
    }
    bool good = json_dump_file(report, path, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) == 0;
    json_decref(report);
    if (!good)
        fprintf(stderr, "stall: %s cannot be written\n", path);
    return good;
}
