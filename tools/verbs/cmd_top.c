// SPDX-License-Identifier: Apache-2.0
//
// Runs the program that draws (tools/top/): it stands beside this one in a build, and in the
// directory for such programs where it is installed.
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *control;
    const char *sort;
    uint64_t interval_ms;
};

static const char *take_sort(void *place, const char *value)
{
    static const char *const sorts[] = {"faults", "latency", "waiting", "replay", "memory", "id"};
    for (size_t i = 0; i < sizeof(sorts) / sizeof(sorts[0]); i++) {
        if (strcmp(value, sorts[i]) == 0) {
            *(const char **)place = sorts[i];
            return NULL;
        }
    }
    return "is not faults, latency, waiting, replay, memory or id";
}

static const struct cli_option options[] = {
    CLI_TIME_MS(struct arguments, interval_ms, .name = "interval", .value = "TIME", .low = 100,
                .high = HOUR_MS, .preset = "2s", .help = "how long to wait between two looks"),
    CLI_OTHER(struct arguments, sort, take_sort, .name = "sort", .value = "KEY",
              .choices = "faults|latency|waiting|replay|memory|id", .preset = "faults",
              .help = "what VMs are sorted by at first"),
    CLI_CONTROL(struct arguments, control),
    CLI_END,
};

static int run_beside(const char *directory, char *const args[])
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/faultline-top", directory) < (int)sizeof(path))
        execv(path, args);
    return errno;
}

static int cmd_top(int argc, char **argv)
{
    char here[PATH_MAX];
    char interval[24];
    struct arguments args = {.control = NULL};
    int parsed = cli_parse(&verb_top, &args, argc, argv);
    if (parsed != EXIT_DONE)
        return parsed;
    if (optind != argc)
        return cli_usage("top", "it takes no argument '%s'", argv[optind]);
    snprintf(interval, sizeof(interval), "%llu", (unsigned long long)args.interval_ms);
    char *const program[] = {"faultline-top", (char *)args.control, interval, (char *)args.sort,
                             NULL};
    ssize_t length = readlink("/proc/self/exe", here, sizeof(here) - 1);
    if (length > 0) {
        here[length] = '\0';
        run_beside(dirname(here), program);
    }
    int error = run_beside(FAULTLINE_LIBEXEC, program);
    return cli_fail_errno("top", error, "cannot run " FAULTLINE_LIBEXEC "/faultline-top");
}

const struct verb verb_top = {
    .name = "top",
    .run = cmd_top,
    .summary = "watch a running server: its VMs, workers, cache and images",
    .synopsis = {"[OPTION...]"},
    .about =
        "Shows a running server on the terminal, and looks again every two seconds: what is "
        "wrong, faults and how long they take, replay, cache, workers, and a table of the VMs "
        "that fault most.\n"
        "\n"
        "Keys: q leaves; v shows VMs, images or workers; s sorts by the next column; / filters "
        "VMs by image, state, id or pid; h explains the columns.",
    .options = options,
};
