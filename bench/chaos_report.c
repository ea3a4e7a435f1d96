// SPDX-License-Identifier: Apache-2.0
#include <jansson.h>
#include <stdio.h>

#include "bench/chaos.h"

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static void row(const char *what, uint64_t count)
{
    printf("| %-46s | %10llu |\n", what, (unsigned long long)count);
}

static void print_done(const struct chaos_run *run)
{
    const struct chaos_done *done = &run->done;
    row("engine killed while it served", done->kills);
    row("engine killed while it stood by       ", done->standby_kills);
    row("upgrades", done->upgrades);
    row("  of these disturbed by something else", done->upgrades_disturbed);
    row("  of those that failed or were rolled back", done->upgrades_failed);
    row("keeper killed, another started", done->restarts[CHAOS_KILLED]);
    row("keeper replaced by exec", done->restarts[CHAOS_EXECED]);
    row("keeper left, restarted from the fd store", done->restarts[CHAOS_LEFT]);
    row("keeper and engine killed, back from the store", done->restarts[CHAOS_FOUND_DEAD]);
    row("engines that served", run->service.served);
    for (uint32_t i = 0; i < done->points; i++) {
        char what[CHAOS_POINT_NAME + 16];
        snprintf(what, sizeof(what), "died at %s", done->point[i].name);
        row(what, done->point[i].hits);
    }
}

static void print_clients(const struct chaos_run *run)
{
    const struct chaos_crowd *crowd = &run->crowd;
    row("clients started", crowd->started);
    row("clients that came to their end", crowd->finished);
    row("clients killed", crowd->killed);
    row("  of these in the middle of a fault", crowd->killed_waiting);
    row("clients that outlived the service", run->done.let_go);
    row("reads", chaos_crowd_ops(crowd, CHAOS_TOUCH));
    row("writes", chaos_crowd_ops(crowd, CHAOS_WRITE));
    row("removals", chaos_crowd_ops(crowd, CHAOS_REMOVE));
    row("pages compared", chaos_crowd_checked(crowd));
}

static void print_verdict(const struct chaos_run *run)
{
    row("PAGES WITH WRONG BYTES", run->crowd.wrong);
    row("VMS LOST", run->crowd.lost);
    row("WAITS LONGER THAN THE LIMIT", run->crowd.waited);
    row("ENGINES THAT DIED UNASKED", run->service.died_unasked);
    row("PROCESSES LEFT", run->done.left);
    row("VMS LEFT IN THE ENGINE", run->done.vms_left);
    row("EXIT STATUS OF THE KEEPER", (uint64_t)run->done.stop_status);
}

static uint64_t longest(const struct chaos_run *run, const struct bench_hist *wait)
{
    return wait->max_ns > run->crowd.longest_ns ? wait->max_ns : run->crowd.longest_ns;
}

void chaos_print(const struct chaos_run *run)
{
    struct bench_hist wait;
    chaos_crowd_wait(&run->crowd, &wait);
    printf("%u clients of up to %u pages, seed %llu, %.1f s\n\n", run->options->clients,
           run->options->pages, (unsigned long long)run->options->seed,
           (double)run->done.duration_ns / 1e9);
    printf("| %-46s | %10s |\n| --- | --: |\n", "what", "number");
    print_done(run);
    print_clients(run);
    print_verdict(run);
    printf("| %-46s | %7.0f ms |\n", "longest wait of a thread", ms(longest(run, &wait)));
    printf("\nwaits: p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms\n%s\n",
           ms(bench_hist_quantile(&wait, .5)), ms(bench_hist_quantile(&wait, .99)),
           ms(bench_hist_quantile(&wait, .999)), chaos_good(run) ? "passed" : "FAILED");
    fflush(stdout);
}

static json_t *done_json(const struct chaos_run *run)
{
    const struct chaos_done *done = &run->done;
    return json_pack(
        "{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "engine_kills", (int)done->kills,
        "standby_kills", (int)done->standby_kills, "upgrades", (int)done->upgrades,
        "upgrades_disturbed", (int)done->upgrades_disturbed, "upgrades_failed",
        (int)done->upgrades_failed, "keeper_killed", (int)done->restarts[CHAOS_KILLED],
        "keeper_execed", (int)done->restarts[CHAOS_EXECED], "keeper_left",
        (int)done->restarts[CHAOS_LEFT], "keeper_found_dead", (int)done->restarts[CHAOS_FOUND_DEAD],
        "engines_served", (int)run->service.served);
}

static json_t *points_json(const struct chaos_run *run)
{
    json_t *points = json_object();
    for (uint32_t i = 0; i < run->done.points; i++)
        json_object_set_new(points, run->done.point[i].name,
                            json_integer((json_int_t)run->done.point[i].hits));
    return points;
}

static json_t *clients_json(const struct chaos_run *run)
{
    const struct chaos_crowd *crowd = &run->crowd;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "started",
                     (json_int_t)crowd->started, "finished", (json_int_t)crowd->finished, "killed",
                     (json_int_t)crowd->killed, "killed_in_a_fault",
                     (json_int_t)crowd->killed_waiting, "reads",
                     (json_int_t)chaos_crowd_ops(crowd, CHAOS_TOUCH), "writes",
                     (json_int_t)chaos_crowd_ops(crowd, CHAOS_WRITE), "removals",
                     (json_int_t)chaos_crowd_ops(crowd, CHAOS_REMOVE), "pages_compared",
                     (json_int_t)chaos_crowd_checked(crowd));
}

static json_t *verdict_json(const struct chaos_run *run)
{
    return json_pack("{s:I, s:I, s:I, s:i, s:i, s:b, s:i}", "pages_wrong",
                     (json_int_t)run->crowd.wrong, "vms_lost", (json_int_t)run->crowd.lost,
                     "waits_over_limit", (json_int_t)run->crowd.waited, "died_unasked",
                     (int)run->service.died_unasked, "processes_left", (int)run->done.left,
                     "vms_left", (int)run->done.vms_left, "stop_status", run->done.stop_status);
}

static json_t *waits_json(const struct chaos_run *run)
{
    struct bench_hist wait;
    chaos_crowd_wait(&run->crowd, &wait);
    return json_pack("{s:I, s:f, s:f, s:f, s:f}", "count", (json_int_t)wait.count, "p50",
                     ms(bench_hist_quantile(&wait, .5)), "p99", ms(bench_hist_quantile(&wait, .99)),
                     "p99.9", ms(bench_hist_quantile(&wait, .999)), "max", ms(longest(run, &wait)));
}

bool chaos_write(const struct chaos_run *run, const char *path)
{
    const struct chaos_options *options = run->options;
    json_t *report = json_pack(
        "{s:b, s:i, s:i, s:I, s:I, s:f, s:o, s:o, s:o, s:o, s:o}", "passed", (int)chaos_good(run),
        "clients", (int)options->clients, "pages", (int)options->pages, "seed",
        (json_int_t)options->seed, "limit_ms", (json_int_t)options->limit_ms, "seconds",
        (double)run->done.duration_ns / 1e9, "done", done_json(run), "points", points_json(run),
        "vms", clients_json(run), "verdict", verdict_json(run), "wait_ms", waits_json(run));
    bool good = report != NULL && json_dump_file(report, path, JSON_INDENT(2)) == 0;
    json_decref(report);
    if (!good)
        fprintf(stderr, "chaos: %s cannot be written\n", path);
    return good;
}
