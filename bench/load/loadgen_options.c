// SPDX-License-Identifier: Apache-2.0
#include "bench/load/loadgen_options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bench/common/size.h"

enum { THREADS_MAX = 256 };

static const char usage[] =
    "usage: loadgen --socket PATH | --map MEMFILE [OPTION...]\n"
    "  --map MEMFILE         no server: a private mapping of the raw memory file (the page cache)\n"
    "  --vms N --threads N   VMs, and threads in each (1, 1)\n"
    "  --memory SIZE         memory of each VM (32M)\n"
    "  --page-size SIZE      4K or 2M (4K)\n"
    "  --touch PAGES         touch at most so many pages in each VM (all but one)\n"
    "  --order random|sequential|FILE   FILE: lines of PAGE or PAGE MS (random)\n"
    "  --pace recorded|none  touch no page before its MS, counted from the start (none)\n"
    "  --restore             attach after the start, so that the times include it\n"
    "  --warm SIZE           memory to touch and free first (as much as the VMs will touch)\n"
    "  --shared              every thread touches every page, not its own share\n"
    "  --file MEMFILE --verify PAGES    compare so many pages of each VM afterwards\n"
    "  --seed N              of the random order (1)\n"
    "  --server-pid PID      add this process's CPU time to the report; up to 8\n"
    "  --hold                when all is printed, stay attached until standard input ends\n"
    "  --timeout SECONDS     give up, and kill the VMs (120)\n";

enum {
    OPT_SOCKET = 1,
    OPT_MAP,
    OPT_VMS,
    OPT_THREADS,
    OPT_MEMORY,
    OPT_PAGE_SIZE,
    OPT_TOUCH,
    OPT_ORDER,
    OPT_PACE,
    OPT_RESTORE,
    OPT_WARM,
    OPT_SHARED,
    OPT_FILE,
    OPT_VERIFY,
    OPT_SEED,
    OPT_SERVER_PID,
    OPT_HOLD,
    OPT_TIMEOUT,
};

static const struct option long_options[] = {
    {"socket", required_argument, NULL, OPT_SOCKET},
    {"map", required_argument, NULL, OPT_MAP},
    {"vms", required_argument, NULL, OPT_VMS},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"memory", required_argument, NULL, OPT_MEMORY},
    {"page-size", required_argument, NULL, OPT_PAGE_SIZE},
    {"touch", required_argument, NULL, OPT_TOUCH},
    {"order", required_argument, NULL, OPT_ORDER},
    {"pace", required_argument, NULL, OPT_PACE},
    {"restore", no_argument, NULL, OPT_RESTORE},
    {"warm", required_argument, NULL, OPT_WARM},
    {"shared", no_argument, NULL, OPT_SHARED},
    {"file", required_argument, NULL, OPT_FILE},
    {"verify", required_argument, NULL, OPT_VERIFY},
    {"seed", required_argument, NULL, OPT_SEED},
    {"server-pid", required_argument, NULL, OPT_SERVER_PID},
    {"hold", no_argument, NULL, OPT_HOLD},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {NULL, 0, NULL, 0},
};

static void set_order(struct bench_options *options, const char *name)
{
    options->order = BENCH_RECORDED;
    if (strcmp(name, "random") == 0)
        options->order = BENCH_RANDOM;
    else if (strcmp(name, "sequential") == 0)
        options->order = BENCH_SEQUENTIAL;
    options->order_file = name;
}

static bool add_server(struct bench_servers *servers, const char *text)
{
    uint64_t pid;
    if (servers->count == BENCH_SERVERS_MAX || !bench_parse_size(text, &pid) || pid > INT32_MAX)
        return false;
    return clock_getcpuclockid((pid_t)pid, &servers->clock[servers->count]) == 0 &&
           ++servers->count;
}

static bool parse_count(const char *text, uint64_t max, uint32_t *ret_count)
{
    uint64_t value;
    if (!bench_parse_size(text, &value) || value == 0 || value > max)
        return false;
    *ret_count = (uint32_t)value;
    return true;
}

static bool set_option(struct bench_options *options, struct bench_servers *servers, int option,
                       const char *value)
{
    switch (option) {
    case OPT_SOCKET:
        options->socket_path = value;
        return true;
    case OPT_MAP:
        options->mapped_file = value;
        return true;
    case OPT_VMS:
        return parse_count(value, BENCH_VMS_MAX, &options->vms);
    case OPT_THREADS:
        return parse_count(value, THREADS_MAX, &options->threads);
    case OPT_MEMORY:
        return bench_parse_size(value, &options->bytes);
    case OPT_PAGE_SIZE:
        return bench_parse_size(value, &options->page_size);
    case OPT_TOUCH:
        return bench_parse_size(value, &options->touch);
    case OPT_ORDER:
        set_order(options, value);
        return true;
    case OPT_PACE:
        options->paced = strcmp(value, "recorded") == 0;
        return options->paced || strcmp(value, "none") == 0;
    case OPT_RESTORE:
        return options->restore = true;
    case OPT_WARM:
        return bench_parse_size(value, &options->warm);
    case OPT_SHARED:
        return options->shared = true;
    case OPT_FILE:
        options->memory_file = value;
        return true;
    case OPT_VERIFY:
        return bench_parse_size(value, &options->verify);
    case OPT_SEED:
        return bench_parse_size(value, &options->seed);
    case OPT_SERVER_PID:
        return add_server(servers, value);
    case OPT_HOLD:
        return options->hold = true;
    case OPT_TIMEOUT:
        return bench_parse_size(value, &options->timeout_s);
    default:
        return false;
    }
}

static bool consistent(const struct bench_options *options)
{
    uint64_t page = options->page_size;
    bool mapped = options->mapped_file != NULL;
    return mapped != (options->socket_path != NULL) &&
           (page == 4096 || (page == 2u << 20 && !mapped)) && options->bytes % page == 0 &&
           options->bytes / page >= 2 && options->bytes / page <= UINT32_MAX &&
           (!options->paced || options->order == BENCH_RECORDED) &&
           (options->verify == 0 || options->memory_file != NULL);
}

static bool parse(int argc, char **argv, struct bench_options *options,
                  struct bench_servers *servers)
{
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (!set_option(options, servers, option, optarg))
            return false;
    }
    return optind == argc && consistent(options);
}

bool bench_options_parse(int argc, char **argv, struct bench_options *ret_options,
                         struct bench_servers *ret_servers)
{
    struct bench_servers servers = {0};
    struct bench_options options = {
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
    if (!parse(argc, argv, &options, &servers)) {
        fputs(usage, stderr);
        return false;
    }
    *ret_options = options;
    *ret_servers = servers;
    return true;
}
