// SPDX-License-Identifier: Apache-2.0
#include <jansson.h>
#include <stdio.h>

#include "tests/resilience/chaos.h"

enum { FIGURES = 16 };

// A row of the table, and a field of the JSON.
struct figure {
    const char *key;
    const char *label;
    uint64_t value;
};

struct figures {
    unsigned count;
    struct figure figure[FIGURES];
};

static void add(struct figures *figures, const char *key, const char *label, uint64_t value)
{
    if (figures->count < FIGURES)
        figures->figure[figures->count++] = (struct figure){key, label, value};
}

static struct figures done_to_the_service(const struct chaos_run *run)
{
    const struct chaos_done *done = &run->done;
    struct figures all = {0};
    add(&all, "engine_kills", "engine killed while it served", done->kills);
    if (run->options->shortages)
        add(&all, "cores", "... that dumped core", done->cores);
    add(&all, "standby_kills", "engine killed while it stood by", done->standby_kills);
    add(&all, "upgrades", "upgrades", done->upgrades);
    add(&all, "upgrades_disturbed", "... disturbed by something else", done->upgrades_disturbed);
    add(&all, "upgrades_failed", "... that failed or were rolled back", done->upgrades_failed);
    add(&all, "keeper_killed", "keeper killed, another started", done->restarts[CHAOS_KILLED]);
    add(&all, "keeper_execed", "keeper replaced by exec", done->restarts[CHAOS_EXECED]);
    add(&all, "keeper_left", "restarted through the fd store", done->restarts[CHAOS_LEFT]);
    add(&all, "keeper_found_dead", "killed, and back from the fd store",
        done->restarts[CHAOS_FOUND_DEAD]);
    add(&all, "engines_served", "engines that served", run->service.served);
    return all;
}

static struct figures clients(const struct chaos_run *run)
{
    const struct chaos_crowd *crowd = &run->crowd;
    struct figures all = {0};
    add(&all, "started", "VMs started", crowd->started);
    add(&all, "finished", "VMs that came to their end", crowd->finished);
    add(&all, "killed", "VMs killed", crowd->killed);
    add(&all, "killed_in_a_fault", "... in the middle of a fault", crowd->killed_waiting);
    add(&all, "outlived_the_service", "VMs that outlived the service", run->done.let_go);
    add(&all, "reads", "reads", chaos_crowd_ops(crowd, CHAOS_TOUCH));
    add(&all, "writes", "writes", chaos_crowd_ops(crowd, CHAOS_WRITE));
    add(&all, "removals", "removals", chaos_crowd_ops(crowd, CHAOS_REMOVE));
    add(&all, "replayed", "working sets streamed in to their end", run->service.replayed);
    add(&all, "pages_compared", "pages compared", chaos_crowd_checked(crowd));
    return all;
}

static struct figures mixture(const struct chaos_run *run)
{
    const struct chaos_crowd *crowd = &run->crowd;
    const uint32_t *done = run->chores.done;
    struct figures all = {0};
    if (!run->options->mixed)
        return all;
    add(&all, "huge_vms", "VMs of 2 MiB pages", chaos_crowd_attached(crowd, CHAOS_HUGE));
    add(&all, "clones", "clones of a template", chaos_crowd_attached(crowd, CHAOS_CLONE));
    add(&all, "recordings", "recordings added to the trace", done[CHAOS_RECORD]);
    add(&all, "recordings_killed", "`faultline record` killed", done[CHAOS_RECORD_KILLED]);
    add(&all, "traces", "traces looked at", done[CHAOS_TRACE]);
    add(&all, "optimized", "image replaced by optimize", done[CHAOS_OPTIMIZE]);
    add(&all, "templates", "templates asked for", done[CHAOS_TEMPLATE]);
    add(&all, "completed", "templates completed", done[CHAOS_COMPLETE]);
    add(&all, "memory", "bytes of the engine without VMs", run->done.memory);
    return all;
}

static struct figures shortages(const struct chaos_run *run)
{
    const uint32_t *done = run->shortages.done;
    struct figures all = {0};
    if (!run->options->shortages)
        return all;
    add(&all, "no_huge_pages", "no free huge page for a while", done[CHAOS_NO_HUGE_PAGES]);
    add(&all, "huge_pages_taken", "... pages taken at one time, at most",
        run->shortages.taken_most);
    add(&all, "huge_vms", "VMs of 2 MiB pages", chaos_crowd_attached(&run->crowd, CHAOS_HUGE));
    add(&all, "no_store", "store unmounted and mounted again", done[CHAOS_NO_STORE]);
    add(&all, "no_descriptors", "no spare descriptors for a while", done[CHAOS_NO_DESCRIPTORS]);
    add(&all, "stillborn", "engines that could not start meanwhile", run->service.stillborn);
    add(&all, "limit_met", "memory limit of VMs met", run->limit ? chaos_limit_met(run->limit) : 0);
    add(&all, "swapped", "... pages on swap at one time, at most", run->swapped_most);
    return all;
}

static struct figures verdict(const struct chaos_run *run)
{
    struct figures all = {0};
    add(&all, "pages_wrong", "PAGES WITH WRONG BYTES", run->crowd.wrong);
    add(&all, "vms_lost", "VMS LOST", run->crowd.lost);
    add(&all, "waits_over_limit", "WAITS LONGER THAN THE LIMIT", run->crowd.waited);
    add(&all, "died_unasked", "ENGINES THAT DIED UNASKED", run->service.died_unasked);
    add(&all, "processes_left", "PROCESSES LEFT", run->done.left);
    add(&all, "vms_left", "VMS THAT THE ENGINE DID NOT FORGET", run->done.vms_left);
    add(&all, "stop_status", "EXIT STATUS OF THE KEEPER", (uint64_t)run->done.stop_status);
    return all;
}

static struct figures points(const struct chaos_run *run, uint32_t from)
{
    struct figures all = {0};
    for (uint32_t i = from; i < run->done.points; i++)
        add(&all, run->done.point[i].name, run->done.point[i].name, run->done.point[i].hits);
    return all;
}

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

uint64_t chaos_longest_ns(const struct chaos_run *run)
{
    struct bench_hist wait;
    chaos_crowd_wait(&run->crowd, &wait);
    return wait.max_ns > run->crowd.longest_ns ? wait.max_ns : run->crowd.longest_ns;
}

// --- the table ---

static void print(struct figures figures)
{
    for (unsigned i = 0; i < figures.count; i++)
        printf("| %-36s | %10llu |\n", figures.figure[i].label,
               (unsigned long long)figures.figure[i].value);
}

void chaos_print(const struct chaos_run *run)
{
    struct bench_hist wait;
    chaos_crowd_wait(&run->crowd, &wait);
    printf("%u VMs of up to %u pages at a time, seed %llu, %.1f s\n\n", run->options->clients,
           run->options->pages, (unsigned long long)run->options->seed,
           (double)run->done.duration_ns / 1e9);
    printf("| what | number |\n| --- | --: |\n");
    print(done_to_the_service(run));
    for (uint32_t i = 0; i < run->done.points; i += FIGURES)
        print(points(run, i));
    print(clients(run));
    print(mixture(run));
    print(shortages(run));
    print(verdict(run));
    printf("\nwaits: p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms, the longest %.0f ms\n%s\n",
           ms(bench_hist_quantile(&wait, .5)), ms(bench_hist_quantile(&wait, .99)),
           ms(bench_hist_quantile(&wait, .999)), ms(chaos_longest_ns(run)),
           chaos_good(run) ? "passed" : "FAILED");
    fflush(stdout);
}

// --- JSON ---

static void put(json_t *object, struct figures figures)
{
    for (unsigned i = 0; i < figures.count; i++)
        json_object_set_new(object, figures.figure[i].key,
                            json_integer((json_int_t)figures.figure[i].value));
}

static void put_in(json_t *object, const char *key, struct figures figures)
{
    json_t *inner = json_object();
    put(inner, figures);
    json_object_set_new(object, key, inner);
}

static json_t *options_json(const struct chaos_run *run)
{
    const struct chaos_options *options = run->options;
    struct figures all = {0};
    add(&all, "clients", "", options->clients);
    add(&all, "pages", "", options->pages);
    add(&all, "seed", "", options->seed);
    add(&all, "every_ms", "", options->every_ms);
    add(&all, "pause_us", "", options->pause_us);
    add(&all, "limit_ms", "", options->limit_ms);
    json_t *object = json_object();
    put(object, all);
    return object;
}

static json_t *waits_json(const struct chaos_run *run)
{
    struct bench_hist wait;
    json_t *object = json_object();
    chaos_crowd_wait(&run->crowd, &wait);
    json_object_set_new(object, "count", json_integer((json_int_t)wait.count));
    json_object_set_new(object, "p50", json_real(ms(bench_hist_quantile(&wait, .5))));
    json_object_set_new(object, "p99", json_real(ms(bench_hist_quantile(&wait, .99))));
    json_object_set_new(object, "p99.9", json_real(ms(bench_hist_quantile(&wait, .999))));
    json_object_set_new(object, "max", json_real(ms(chaos_longest_ns(run))));
    return object;
}

bool chaos_write(const struct chaos_run *run, const char *path)
{
    json_t *report = json_object();
    json_t *at = json_object();
    for (uint32_t i = 0; i < run->done.points; i += FIGURES)
        put(at, points(run, i));
    json_object_set_new(report, "passed", json_boolean(chaos_good(run)));
    json_object_set_new(report, "seconds", json_real((double)run->done.duration_ns / 1e9));
    json_object_set_new(report, "options", options_json(run));
    put_in(report, "done", done_to_the_service(run));
    json_object_set_new(report, "points", at);
    put_in(report, "vms", clients(run));
    if (run->options->mixed)
        put_in(report, "mixture", mixture(run));
    if (run->options->shortages)
        put_in(report, "shortages", shortages(run));
    put_in(report, "verdict", verdict(run));
    json_object_set_new(report, "wait_ms", waits_json(run));
    bool good = json_dump_file(report, path, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) == 0;
    json_decref(report);
    if (!good)
        fprintf(stderr, "chaos: %s cannot be written\n", path);
    return good;
}
