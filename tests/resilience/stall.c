// SPDX-License-Identifier: Apache-2.0
//
// stall: attaches VMs that touch new pages at a steady rate, makes things happen to the service,
// and reports the longest touch around each event. docs/resilience.md says how to read it.
#include "tests/resilience/stall.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench/common/size.h"
#include "tests/resilience/chaos_image.h"
#include "tests/resilience/chaos_process.h"

static const char usage[] =
    "usage: stall --program PATH [OPTION...]\n"
    "  --program PATH    the faultline command\n"
    "  --vms N           VMs attached (64)\n"
    "  --events N        of each kind (30)\n"
    "  --rate N          touches a second, of all VMs together (2000)\n"
    "  --pages N         of the image and of each VM (16384)\n"
    "  --kinds LIST      only these of none, engine_kill, upgrade, keeper_exec,\n"
    "                    keeper_kill, ahead_hangs, ahead_kill, store_restart, all_killed\n"
    "  --quiet PERCENT   wait until no more of one CPU is busy (60)\n"
    "  --hang LIBRARY    VMs get what the image's trace has ahead, with a cache of 16 MiB; and "
    "what\n"
    "                    has this hang (hanging_disk.so)\n"
    "  --managed         restarts through an fd store as well\n"
    "  --seed N          of everything random (the time)\n"
    "  --log FILE        where the service logs\n"
    "  --out FILE        write the figures as JSON\n";

enum { PROGRAM = 1, VMS, EVENTS, RATE, PAGES, KINDS, QUIET, MANAGED, HANG, SEED, OUT, LOG };

static const struct option long_options[] = {
    {"program", required_argument, NULL, PROGRAM},
    {"vms", required_argument, NULL, VMS},
    {"events", required_argument, NULL, EVENTS},
    {"rate", required_argument, NULL, RATE},
    {"pages", required_argument, NULL, PAGES},
    {"kinds", required_argument, NULL, KINDS},
    {"quiet", required_argument, NULL, QUIET},
    {"managed", no_argument, NULL, MANAGED},
    {"seed", required_argument, NULL, SEED},
    {"out", required_argument, NULL, OUT},
    {"log", required_argument, NULL, LOG},
    {"hang", required_argument, NULL, HANG},
    {NULL, 0, NULL, 0},
};

static bool set_number(const char *text, uint64_t high, uint32_t *ret_number)
{
    uint64_t number;
    if (!bench_parse_size(text, &number) || number == 0 || number > high)
        return false;
    *ret_number = (uint32_t)number;
    return true;
}

static bool set_option(struct stall_options *options, int option, const char *value)
{
    switch (option) {
    case PROGRAM:
        options->program = realpath(value, NULL);
        return options->program != NULL;
    case VMS:
        return set_number(value, 4096, &options->vms);
    case EVENTS:
        return set_number(value, 1000, &options->events);
    case RATE:
        return set_number(value, 1000000, &options->rate);
    case PAGES:
        return set_number(value, 1 << 20, &options->pages);
    case KINDS:
        options->kinds = value;
        return true;
    case QUIET:
        return set_number(value, 100000, &options->quiet);
    case SEED:
        return bench_parse_size(value, &options->seed);
    case HANG:
        options->hang = realpath(value, NULL);
        return options->hang != NULL;
    case MANAGED:
        return options->managed = true;
    case LOG:
        options->log = value;
        return true;
    case OUT:
        options->out = value;
        return true;
    default:
        return false;
    }
}

static bool parse(int argc, char **argv, struct stall_options *options)
{
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (!set_option(options, option, optarg))
            return false;
    }
    return options->program != NULL && optind == argc;
}

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
    job.options = (struct stall_options){.vms = 64,
                                         .events = 30,
                                         .rate = 2000,
                                         .pages = 16384,
                                         .quiet = 60,
                                         .seed = (uint64_t)time(NULL)};
    if (!parse(argc, argv, &job.options)) {
        fputs(usage, stderr);
        return 2;
    }
    if (!chaos_can_run())
        return CHAOS_SKIPPED;
    temp_make(&job.temp);
    int status = chaos_guard(run_job, &job, &left);
    temp_remove(&job.temp);
    if (left > 0)
        fprintf(stderr, "stall: %u processes were left, and killed\n", left);
    return status;
}
