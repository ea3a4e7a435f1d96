// SPDX-License-Identifier: Apache-2.0
//
// stall: attaches VMs that touch new pages at a steady rate, makes things happen to the service,
// and reports the longest touch around each event. docs/resilience.md says how to read the table.
//
// The driver (stall_driver.c) opens a window just before an event and closes it some time after.
// The clients (stall_client.c) record the touches that overlap a window, on a board in shared
// memory.
#include "tests/resilience/stall.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench/common/options.h"
#include "tests/resilience/chaos_image.h"
#include "tests/resilience/chaos_process.h"

static struct stall_options parsed = {
    .vms = 64, .events = 30, .rate = 2000, .pages = 16384, .quiet = 60};

static const struct bench_option table[] = {
    {.name = "program",
     .value = "PATH",
     .path = &parsed.program,
     .required = true,
     .help = "the faultline command"},
    {.name = "vms",
     .value = "N",
     .number = &parsed.vms,
     .low = 1,
     .high = 4096,
     .help = "VMs that are attached"},
    {.name = "events",
     .value = "N",
     .number = &parsed.events,
     .low = 1,
     .high = 1000,
     .help = "events of each kind"},
    {.name = "rate",
     .value = "N",
     .number = &parsed.rate,
     .low = 1,
     .high = 1000000,
     .help = "touches a second, of all VMs together"},
    {.name = "pages",
     .value = "N",
     .number = &parsed.pages,
     .low = 1,
     .high = 1 << 20,
     .help = "pages of the image and of each VM"},
    {.name = "kinds",
     .value = "KIND,KIND...",
     .text = &parsed.kinds,
     .otherwise = "all",
     .help = "only these of none, engine_kill, upgrade, keeper_exec, keeper_kill, ahead_hangs, "
             "ahead_kill, store_restart, all_killed"},
    {.name = "quiet",
     .value = "PERCENT",
     .number = &parsed.quiet,
     .low = 1,
     .high = 100000,
     .help = "before an event wait until no more than this of one CPU is busy"},
    {.name = "hang",
     .value = "LIBRARY",
     .path = &parsed.hang,
     .otherwise = "nothing hangs",
     .help = "the image has a trace and the engine a cache of 16 MiB, and this library "
             "(hanging_disk.so) makes read-ahead hang"},
    {.name = "managed", .flag = &parsed.managed, .help = "restarts through an fd store as well"},
    {.name = "seed",
     .value = "N",
     .large = &parsed.seed,
     .otherwise = "the time",
     .help = "decides everything that is random"},
    {.name = "log",
     .value = "FILE",
     .text = &parsed.log,
     .otherwise = "a file that is removed at the end",
     .help = "where the service logs"},
    {.name = "out",
     .value = "FILE",
     .text = &parsed.out,
     .otherwise = "not written",
     .help = "the figures as JSON"},
    BENCH_OPTIONS_END,
};

static const struct bench_command command = {
    .program = "stall",
    .about = "Attaches VMs that touch new pages at a steady rate, makes things happen to the "
             "service, and prints the longest touch around each event. Takes root.",
    .option = table,
};

struct job {
    struct stall_options options;
    struct temp temp;
};

static bool make_room(struct stall_run *run)
{
    uint32_t vms = run->options->vms;
    uint32_t events = run->options->events;
    size_t size = sizeof(*run->board) + sizeof(run->board->slot[0]) * vms;
    run->board = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    run->pid = calloc(vms, sizeof(*run->pid));
    bool good = run->board != MAP_FAILED && run->pid != NULL;
    for (enum stall_kind kind = STALL_NONE; kind < STALL_KINDS; kind++) {
        run->result[kind].longest_ns = calloc(events, sizeof(uint64_t));
        run->result[kind].window_ns = calloc(events, sizeof(uint64_t));
        good = good && run->result[kind].longest_ns != NULL && run->result[kind].window_ns != NULL;
    }
    return good;
}

static int run_job(void *arg)
{
    static struct stall_run run;
    struct job *job = arg;
    const struct stall_options *options = &job->options;
    run.options = options;
    run.random = chaos_hash(options->seed, 1);
    if (!make_room(&run) || !chaos_service_prepare(&run.service, &job->temp, options->program,
                                                   options->seed, options->pages, options->log))
        return 1;
    if (options->hang != NULL)
        stall_prepare_hanging(&run, &job->temp);
    stall_drive(&run, STALL_NONE, STALL_OWN_KINDS);
    if (!run.failed && options->managed)
        stall_drive(&run, STALL_OWN_KINDS, STALL_KINDS);
    stall_print(&run);
    bool written = options->out == NULL || stall_write(&run, options->out);
    return run.failed || !written ? 1 : 0;
}

int main(int argc, char **argv)
{
    static struct job job;
    unsigned left = 0;
    parsed.seed = (uint64_t)time(NULL);
    int result = bench_options_parse(&command, argc, argv);
    if (result != BENCH_OPTIONS_GOOD)
        return result;
    job.options = parsed;
    if (!chaos_can_run())
        return CHAOS_SKIPPED;
    temp_make(&job.temp);
    int status = chaos_guard(run_job, &job, &left);
    temp_remove(&job.temp);
    if (left > 0)
        fprintf(stderr, "stall: %u processes were left, and killed\n", left);
    return status;
}
