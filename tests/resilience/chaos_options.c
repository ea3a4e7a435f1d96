// SPDX-License-Identifier: Apache-2.0
#include <time.h>

#include "bench/common/options.h"
#include "tests/resilience/chaos.h"

enum { EVENTS_MAX = CHAOS_ENGINES / 4 };

static struct chaos_options options = {
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

static const struct bench_option table[] = {
    {.name = "program",
     .value = "PATH",
     .path = &options.program,
     .required = true,
     .help = "the faultline command"},
    {.name = "clients",
     .value = "N",
     .number = &options.clients,
     .low = 1,
     .high = 4096,
     .help = "VMs at a time"},
    {.name = "kills",
     .value = "N",
     .number = &options.kills,
     .high = EVENTS_MAX,
     .help = "how often the engine is killed by SIGKILL"},
    {.name = "upgrades",
     .value = "N",
     .number = &options.upgrades,
     .high = EVENTS_MAX,
     .help = "how often the engine is upgraded"},
    {.name = "restarts",
     .value = "N",
     .number = &options.restarts,
     .high = EVENTS_MAX,
     .help = "how often the keeper is restarted; with --managed as often again through an fd "
             "store"},
    {.name = "managed",
     .flag = &options.managed,
     .help = "half of the events happen under a service manager that has an fd store"},
    {.name = "mixed",
     .flag = &options.mixed,
     .help = "among the VMs are some of 2 MiB pages and clones of a template, VMs live for a "
             "short time, and meanwhile an operator records, lays out and keeps the image"},
    {.name = "shortages",
     .flag = &options.shortages,
     .help = "huge pages, the store and descriptors are taken away and given back, a quarter of "
             "the VMs live at a memory limit with swap, and some engines dump core; not with "
             "--mixed"},
    {.name = "every",
     .value = "MS",
     .number = &options.every_ms,
     .low = 1,
     .high = 60000,
     .help = "mean time between two events"},
    {.name = "seconds",
     .value = "N",
     .number = &options.seconds,
     .high = 86400,
     .help = "go on for this long after the last event"},
    {.name = "points",
     .value = "NAME,NAME...",
     .text = &options.points,
     .otherwise = "none",
     .help = "instead of all that, engines kill themselves at these test points"},
    {.name = "hits",
     .value = "N",
     .number = &options.hits,
     .low = 1,
     .high = 1000,
     .help = "how often at each of them"},
    {.name = "limit",
     .value = "MS",
     .large = &options.limit_ms,
     .low = 1,
     .help = "the run fails if a thread of a VM waits longer"},
    {.name = "pages",
     .value = "N",
     .number = &options.pages,
     .low = 64,
     .high = 1 << 20,
     .help = "memory of a VM, at most, in pages of 4 KiB"},
    {.name = "pause",
     .value = "US",
     .number = &options.pause_us,
     .high = 1000000,
     .help = "mean pause of a VM's thread between two operations"},
    {.name = "seed",
     .value = "N",
     .large = &options.seed,
     .otherwise = "the time",
     .help = "decides everything that is random"},
    {.name = "out",
     .value = "FILE",
     .text = &options.out,
     .otherwise = "not written",
     .help = "the figures as JSON"},
    {.name = "log",
     .value = "FILE",
     .text = &options.log,
     .otherwise = "a file that is removed at the end",
     .help = "where the service logs"},
    BENCH_OPTIONS_END,
};

static const struct bench_command command = {
    .program = "chaos",
    .about = "Serves a crowd of VMs that check every byte they see, and meanwhile kills, upgrades "
             "and restarts the service. Takes root. Exit status 0 means that nothing was wrong.",
    .option = table,
};

int chaos_options_parse(int argc, char **argv, struct chaos_options *ret_options)
{
    options.seed = (uint64_t)time(NULL);
    int result = bench_options_parse(&command, argc, argv);
    if (result != BENCH_OPTIONS_GOOD)
        return result;
    if (options.mixed && options.shortages)
        return bench_options_refuse(&command, "--mixed and --shortages exclude each other");
    if (options.mixed && options.pages < 2 * CHAOS_HUGE_PAGES)
        return bench_options_refuse(&command, "--mixed needs --pages %d or more",
                                    2 * CHAOS_HUGE_PAGES);
    *ret_options = options;
    return result;
}
