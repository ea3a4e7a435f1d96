// SPDX-License-Identifier: Apache-2.0
#include "bench/load/loadgen_options.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/common/options.h"

enum { THREADS_MAX = 256 };

static struct bench_servers servers;
static struct load_options options = {
    .vms = 1,
    .threads = 1,
    .bytes = 32u << 20,
    .page_size = 4096,
    .touch = UINT64_MAX,
    .order = BENCH_RANDOM,
    .order_file = "random",
    .seed = 1,
    .timeout_s = 120,
};

static const char *set_order(void *to, const char *name)
{
    (void)to;
    options.order = BENCH_RECORDED;
    if (strcmp(name, "random") == 0)
        options.order = BENCH_RANDOM;
    else if (strcmp(name, "sequential") == 0)
        options.order = BENCH_SEQUENTIAL;
    options.order_file = name;
    return NULL;
}

static const char *set_pace(void *to, const char *name)
{
    (void)to;
    options.paced = strcmp(name, "recorded") == 0;
    return options.paced || strcmp(name, "none") == 0 ? NULL : "is neither recorded nor none";
}

static const char *add_server(void *to, const char *text)
{
    char *end = NULL;
    long pid = strtol(text, &end, 10);
    (void)to;
    if (servers.count == BENCH_SERVERS_MAX)
        return "is the ninth process: CPU time is read of eight at most";
    if (end == text || *end != '\0' || pid <= 0 || pid > INT32_MAX ||
        clock_getcpuclockid((pid_t)pid, &servers.clock[servers.count]) != 0)
        return "is not the process id of a process that runs";
    servers.count++;
    return NULL;
}

static const struct bench_option table[] = {
    {.name = "socket", .value = "PATH", .text = &options.socket_path, .help = "the server"},
    {.name = "map",
     .value = "MEMFILE",
     .text = &options.mapped_file,
     .help = "instead of a server: map this raw memory file privately (the page cache)"},
    {.name = "vms",
     .value = "N",
     .number = &options.vms,
     .low = 1,
     .high = BENCH_VMS_MAX,
     .help = "VMs, each a process"},
    {.name = "threads",
     .value = "N",
     .number = &options.threads,
     .low = 1,
     .high = THREADS_MAX,
     .help = "threads of each VM"},
    {.name = "memory", .value = "SIZE", .large = &options.bytes, .help = "memory of each VM"},
    {.name = "page-size",
     .value = "SIZE",
     .large = &options.page_size,
     .otherwise = "4K",
     .help = "4K or 2M"},
    {.name = "touch",
     .value = "PAGES",
     .large = &options.touch,
     .otherwise = "all but one",
     .help = "touch this many pages of each VM at most"},
    {.name = "order",
     .value = "ORDER",
     .take = set_order,
     .otherwise = "random",
     .help = "random, sequential, or a file with lines of PAGE or PAGE MS"},
    {.name = "pace",
     .value = "PACE",
     .take = set_pace,
     .otherwise = "none",
     .help = "recorded: touch no page before its MS, counted from the start; or none"},
    {.name = "restore",
     .flag = &options.restore,
     .help = "attach the VMs after the start, so that the times include it"},
    {.name = "warm",
     .value = "SIZE",
     .large = &options.warm,
     .otherwise = "as much as the VMs will touch",
     .help = "memory to touch and free before anything else"},
    {.name = "shared",
     .flag = &options.shared,
     .help = "each thread touches every page, instead of a share of its own"},
    {.name = "file",
     .value = "MEMFILE",
     .text = &options.memory_file,
     .help = "what --verify compares with"},
    {.name = "verify",
     .value = "PAGES",
     .large = &options.verify,
     .help = "compare this many pages of each VM afterwards"},
    {.name = "seed", .value = "N", .large = &options.seed, .help = "seed of the random order"},
    {.name = "server-pid",
     .value = "PID",
     .take = add_server,
     .help = "add the CPU time of this process to the report; up to eight times"},
    {.name = "hold",
     .flag = &options.hold,
     .help = "stay attached after the report, until standard input ends"},
    {.name = "timeout",
     .value = "SECONDS",
     .large = &options.timeout_s,
     .help = "then give up, and kill the VMs"},
    BENCH_OPTIONS_END,
};

static const struct bench_command command = {
    .program = "loadgen",
    .about = "Plays many VMs against a page-fault server, and prints as JSON what they saw.",
    .option = table,
};

// Returns what is wrong with the options together, or NULL.
static const char *find_contradiction(void)
{
    uint64_t page = options.page_size;
    uint64_t pages = page ? options.bytes / page : 0;
    bool mapped = options.mapped_file != NULL;
    if (mapped == (options.socket_path != NULL))
        return "it takes one of --socket and --map";
    if (page != 4096 && page != 2u << 20)
        return "--page-size is 4K or 2M";
    if (mapped && page != 4096)
        return "--map has pages of 4K only";
    if (options.bytes % page != 0 || pages < 2 || pages > UINT32_MAX)
        return "--memory is a multiple of the page size, and at least two pages";
    if (options.paced && options.order != BENCH_RECORDED)
        return "--pace recorded needs an order from a file";
    if (options.verify != 0 && options.memory_file == NULL)
        return "--verify needs --file";
    return NULL;
}

int loadgen_options_parse(int argc, char **argv, struct load_options *ret_options,
                          struct bench_servers *ret_servers)
{
    int result = bench_options_parse(&command, argc, argv);
    const char *wrong = result == BENCH_OPTIONS_GOOD ? find_contradiction() : NULL;
    if (wrong)
        return bench_options_refuse(&command, "%s", wrong);
    *ret_options = options;
    *ret_servers = servers;
    return result;
}
