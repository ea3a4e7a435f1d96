// SPDX-License-Identifier: Apache-2.0
//
// chaos: serves a crowd of VMs that check every byte they see, and meanwhile kills, upgrades and
// restarts the service. docs/resilience.md says more. The processes of a run:
//
// - The guardian (chaos_process.c) is main(). It kills what the run leaves behind.
// - The driver (chaos_driver.c) is the guardian's child. It alone decides what happens next, starts
// and
//   kills the others, and reads the service's log to know which engine serves.
// - Clients (chaos_client.c) are VMs, children of the driver. They tell the driver what they do on
// a
//   board in shared memory, so that the driver sees also a client that hangs.
// - The keeper and its engines are what is tested. The driver starts the keeper.
#include "tests/resilience/chaos.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/options.h"
#include "tests/resilience/chaos_image.h"
#include "tests/resilience/chaos_process.h"

// Asks for twice as many as VMs can use at a time: the kernel takes a while to free those of VMs
// that have ended.
static bool has_huge_pages(const struct chaos_options *options)
{
    char line[128];
    unsigned long long available = 0;
    unsigned long long need = 2ull * ((options->clients + 7) / 8) *
                              ((options->pages + CHAOS_HUGE_PAGES - 1) / CHAOS_HUGE_PAGES);
    FILE *file = fopen("/proc/meminfo", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        sscanf(line, "HugePages_Free: %llu", &available);
    if (file != NULL)
        fclose(file);
    if (available < need)
        fprintf(stderr, "chaos: no VMs of 2 MiB pages, for which %llu of these must be free\n",
                need);
    return available >= need;
}

static void mix(struct chaos_run *run, struct chaos_plan *plan)
{
    plan->brief = true;
    plan->template_socket = run->service.template;
    plan->huge = has_huge_pages(run->options);
    // A multiple of 2 MiB: a recording of a large page names all small pages in it.
    plan->in_vain = run->options->pages / 8;
    if (plan->in_vain < CHAOS_HUGE_PAGES)
        plan->in_vain = CHAOS_HUGE_PAGES;
    plan->in_vain += (run->options->pages - plan->in_vain) % CHAOS_HUGE_PAGES;
    run->chores = (struct chaos_chores){.service = &run->service,
                                        .touched = run->options->pages - plan->in_vain,
                                        .random = chaos_hash(run->options->seed, 3)};
    setenv("FAULTLINE_STORE", run->service.store, 1);
    setenv("FAULTLINE_CONTROL", run->service.control, 1);
}

struct job {
    struct chaos_options options;
    struct temp temp;
    struct chaos_limit limit;
};

// A VM uses about nine sixteenths of the largest size, and half of that at a time. The limit is two
// fifths of what the VMs use, so that they must swap.
static bool make_short(struct chaos_run *run, struct job *job, struct chaos_plan *plan)
{
    const struct rlimit cores = {RLIM_INFINITY, RLIM_INFINITY};
    uint64_t pages = (uint64_t)run->options->clients / CHAOS_LIMITED_EVERY * run->options->pages;
    int error = chaos_shortages_prepare(&run->service);
    if (error) {
        fprintf(stderr, "chaos: %s: %s\n", run->service.store, strerror(-error));
        return false;
    }
    run->shortages = (struct chaos_shortages){.service = &run->service,
                                              .crowd = &run->crowd,
                                              .random = chaos_hash(run->options->seed, 4)};
    run->shortages.huge = plan->huge =
        run->options->pages >= CHAOS_HUGE_PAGES && has_huge_pages(run->options);
    if (!chaos_limit_make(&job->limit, pages * CHAOS_PAGE / 5, pages * CHAOS_PAGE * 2))
        return false;
    run->limit = &job->limit;
    plan->limit_procs = job->limit.procs;
    // The kernel writes core dumps into the current directory.
    return setrlimit(RLIMIT_CORE, &cores) == 0 && chdir(job->temp.path) == 0;
}

static int run_job(void *arg)
{
    static struct chaos_run run;
    struct job *job = arg;
    const struct chaos_options *options = &job->options;
    int home = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC); // where relative paths of options begin
    run.options = options;
    run.random = chaos_hash(options->seed, 1);
    if (!chaos_service_prepare(&run.service, &job->temp, options->program, options->seed,
                               options->pages, options->log))
        return 1;
    struct chaos_plan plan = {.socket = run.service.socket,
                              .image_seed = options->seed,
                              .seed = chaos_hash(options->seed, 2),
                              .pages_most = options->pages,
                              .pause_us = options->pause_us};
    if (options->mixed)
        mix(&run, &plan);
    if (options->shortages && !make_short(&run, job, &plan))
        return 1;
    if (chaos_crowd_make(&run.crowd, &plan, options->clients, options->limit_ms * 1000000) < 0)
        return 1;
    chaos_drive(&run);
    chaos_print(&run);
    bool written = fchdir(home) == 0 && (options->out == NULL || chaos_write(&run, options->out));
    return chaos_good(&run) && written ? 0 : 1;
}

int main(int argc, char **argv)
{
    static struct job job;
    unsigned left = 0;
    int parsed = chaos_options_parse(argc, argv, &job.options);
    if (parsed != BENCH_OPTIONS_GOOD)
        return parsed;
    if (!chaos_can_run())
        return CHAOS_SKIPPED;
    fprintf(stderr, "chaos: seed %llu\n", (unsigned long long)job.options.seed);
    temp_make(&job.temp);
    chaos_limit_name(&job.limit, job.temp.path);
    int status = chaos_guard(run_job, &job, &left);
    chaos_limit_remove(&job.limit);
    temp_remove(&job.temp);
    if (left > 0)
        fprintf(stderr, "chaos: %u processes were left, and killed\n", left);
    return status;
}
