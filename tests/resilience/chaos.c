// SPDX-License-Identifier: Apache-2.0
//
// chaos: runs `faultline serve` for a crowd of clients whose every byte is checked, and meanwhile
// kills, upgrades and restarts it. Exit status 0: nothing was wrong. docs/resilience.md says more.
#include "tests/resilience/chaos.h"

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/size.h"
#include "tests/resilience/chaos_image.h"
#include "tests/resilience/chaos_process.h"

enum { HUGE_PAGES = 512 };

static const char usage[] =
    "usage: chaos --program PATH [OPTION...]\n"
    "  --program PATH    the faultline command\n"
    "  --clients N       VMs at a time (64)\n"
    "  --kills N         SIGKILL the engine so often (500)\n"
    "  --upgrades N      upgrade it so often (50)\n"
    "  --restarts N      restart the keeper so often (20), and as often through an fd store if\n"
    "  --managed         the second half of all is under a service manager with one\n"
    "  --mixed           VMs of 2 MiB pages and clones of a template among the others, short "
    "lives,\n"
    "                    and an operator who records, lays out and keeps the image meanwhile\n"
    "  --shortages       huge pages, the store and descriptors go and come back, a quarter of the "
    "VMs\n"
    "                    live at a memory limit, with swap, and some deaths dump core; not with "
    "--mixed\n"
    "  --every MS        mean time between two events (400)\n"
    "  --seconds N       go on for so long after the last event (0)\n"
    "  --points LIST     instead, have it die at these test points, NAME,NAME...\n"
    "  --hits N          so often at each of them (20)\n"
    "  --limit MS        no thread of a VM may wait longer (5000)\n"
    "  --pages N         memory of a VM, at most (1024)\n"
    "  --pause US        mean pause of a VM's thread between two operations (10000)\n"
    "  --seed N          of everything random (the time)\n"
    "  --out FILE        write the figures as JSON\n"
    "  --log FILE        where the service logs (a file that is removed at the end)\n";

enum {
    PROGRAM = 1,
    CLIENTS,
    KILLS,
    UPGRADES,
    RESTARTS,
    EVERY,
    SECONDS,
    POINTS,
    HITS,
    MANAGED,
    MIXED,
    SHORTAGES,
    LIMIT,
    PAGES,
    PAUSE,
    SEED,
    OUT,
    LOG
};

static const struct option long_options[] = {
    {"program", required_argument, NULL, PROGRAM},
    {"clients", required_argument, NULL, CLIENTS},
    {"kills", required_argument, NULL, KILLS},
    {"upgrades", required_argument, NULL, UPGRADES},
    {"restarts", required_argument, NULL, RESTARTS},
    {"every", required_argument, NULL, EVERY},
    {"seconds", required_argument, NULL, SECONDS},
    {"points", required_argument, NULL, POINTS},
    {"hits", required_argument, NULL, HITS},
    {"managed", no_argument, NULL, MANAGED},
    {"mixed", no_argument, NULL, MIXED},
    {"shortages", no_argument, NULL, SHORTAGES},
    {"limit", required_argument, NULL, LIMIT},
    {"pages", required_argument, NULL, PAGES},
    {"pause", required_argument, NULL, PAUSE},
    {"seed", required_argument, NULL, SEED},
    {"out", required_argument, NULL, OUT},
    {"log", required_argument, NULL, LOG},
    {NULL, 0, NULL, 0},
};

static bool set_number(const char *text, uint64_t low, uint64_t high, uint32_t *ret_number)
{
    uint64_t number;
    if (!bench_parse_size(text, &number) || number < low || number > high)
        return false;
    *ret_number = (uint32_t)number;
    return true;
}

static bool set_option(struct chaos_options *options, int option, const char *value)
{
    switch (option) {
    case PROGRAM:
        options->program = realpath(value, NULL);
        return options->program != NULL;
    case CLIENTS:
        return set_number(value, 1, 4096, &options->clients);
    case KILLS:
        return set_number(value, 0, CHAOS_ENGINES / 4, &options->kills);
    case UPGRADES:
        return set_number(value, 0, CHAOS_ENGINES / 4, &options->upgrades);
    case RESTARTS:
        return set_number(value, 0, CHAOS_ENGINES / 4, &options->restarts);
    case EVERY:
        return set_number(value, 1, 60000, &options->every_ms);
    case SECONDS:
        return set_number(value, 0, 86400, &options->seconds);
    case HITS:
        return set_number(value, 1, 1000, &options->hits);
    case POINTS:
        options->points = value;
        return true;
    case PAGES:
        return set_number(value, 64, 1 << 20, &options->pages);
    case PAUSE:
        return set_number(value, 0, 1000000, &options->pause_us);
    case LIMIT:
        return bench_parse_size(value, &options->limit_ms) && options->limit_ms > 0;
    case SEED:
        return bench_parse_size(value, &options->seed);
    case MANAGED:
        return options->managed = true;
    case MIXED:
        return options->mixed = true;
    case SHORTAGES:
        return options->shortages = true;
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

bool chaos_options_parse(int argc, char **argv, struct chaos_options *ret_options)
{
    struct chaos_options options = {
        .seed = (uint64_t)time(NULL),
        .limit_ms = 5000,
        .clients = 64,
        .kills = 500,
        .upgrades = 50,
        .restarts = 20,
        .hits = 20,
        .every_ms = 400,
        .pause_us = 10000,
        .pages = 1024,
    };
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (!set_option(&options, option, optarg)) {
            fputs(usage, stderr);
            return false;
        }
    }
    if (options.program == NULL || optind != argc ||
        (options.mixed && options.pages < 2 * HUGE_PAGES) || (options.mixed && options.shortages)) {
        fputs(usage, stderr);
        return false;
    }
    *ret_options = options;
    return true;
}

// Twice what there can be of them: the kernel takes a while to have those of VMs that are gone.
static bool has_huge_pages(const struct chaos_options *options)
{
    char line[128];
    unsigned long long available = 0;
    unsigned long long need =
        2ull * ((options->clients + 7) / 8) * ((options->pages + HUGE_PAGES - 1) / HUGE_PAGES);
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
    // Whole pages of 2 MiB, as these are recorded as all that is in them.
    plan->in_vain = run->options->pages / 8;
    if (plan->in_vain < HUGE_PAGES)
        plan->in_vain = HUGE_PAGES;
    plan->in_vain += (run->options->pages - plan->in_vain) % HUGE_PAGES;
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

// VMs under the limit use about nine sixteenths of their most, half of it at a time: two fifths
// of that are not enough for them.
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
        run->options->pages >= HUGE_PAGES && has_huge_pages(run->options);
    if (!chaos_limit_make(&job->limit, pages * CHAOS_PAGE / 5, pages * CHAOS_PAGE * 2))
        return false;
    run->limit = &job->limit;
    plan->limit_procs = job->limit.procs;
    // Cores go where the service is.
    return setrlimit(RLIMIT_CORE, &cores) == 0 && chdir(job->temp.path) == 0;
}

static int run_job(void *arg)
{
    static struct chaos_run run;
    struct job *job = arg;
    const struct chaos_options *options = &job->options;
    int home = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC); // relative paths begin there
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
    if (!chaos_options_parse(argc, argv, &job.options))
        return 2;
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
