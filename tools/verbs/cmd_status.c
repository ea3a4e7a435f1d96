// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/verbs/status_page.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *control;
    uint64_t interval_ms;
    bool json;
    bool all;
    bool watch;
};

static const struct cli_option options[] = {
    CLI_FLAG(struct arguments, json, .name = "json",
             .help = "print the state as JSON (docs/control-api.md)"),
    CLI_FLAG(struct arguments, all, .name = "all",
             .help = "show all VMs, also those for which a screen has no room"),
    CLI_FLAG(struct arguments, watch, .name = "watch", .help = "show it again and again"),
    CLI_TIME_MS(struct arguments, interval_ms, .name = "interval", .value = "TIME", .low = 100,
                .high = HOUR_MS, .preset = "2s", .help = "with --watch: how long to wait between"),
    CLI_CONTROL(struct arguments, control),
    CLI_END,
};

static int parse_status(int argc, char **argv, struct arguments *args)
{
    int parsed = cli_parse(&verb_status, args, argc, argv);
    if (parsed != EXIT_DONE)
        return parsed;
    if (args->watch && args->json)
        return cli_usage("status", "--watch and --json exclude each other");
    if (optind != argc)
        return cli_usage("status", "it takes no argument '%s'", argv[optind]);
    return EXIT_DONE;
}

static int print_status(json_t *status, bool all)
{
    struct top_model model = {0};
    char *page = NULL;
    if (top_model_take(&model, status, 0) == 0)
        page = status_page(&model, all ? 0 : status_lines() - 1);
    if (page)
        fputs(page, stdout);
    free(page);
    top_model_clear(&model);
    return page ? EXIT_DONE : cli_fail("status", "there is no memory for the state");
}

static int cmd_status(int argc, char **argv)
{
    struct arguments args = {.control = NULL};
    json_t *status = NULL;
    int result = parse_status(argc, argv, &args);
    if (result != EXIT_DONE)
        return result;
    if (args.watch)
        return status_watch(args.control, args.interval_ms, args.all);
    result = control_ask("status", args.control, "/v1/status", NULL, &status);
    if (result != EXIT_DONE)
        return result;
    if (args.json) {
        json_dumpf(status, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        putchar('\n');
    } else {
        result = print_status(status, args.all);
    }
    json_decref(status);
    return result;
}

const struct verb verb_status = {
    .name = "status",
    .run = cmd_status,
    .summary = "show the state of a running server and of its VMs",
    .synopsis = {"[--json | [--watch] [--all]] [OPTION...]"},
    .about = "Shows the state of a running server on one screen: first whether all is well, or "
             "what is wrong, the worst first. Of more VMs than fit it shows those that matter "
             "most: those that lack something (STATE is 'memory', 'lane', or not 'serving'), then "
             "those that wait, then those with the most faults.\n"
             "\n"
             "With --watch it shows it again and again, until Ctrl-C, and waits for a server that "
             "does not answer. It needs no terminal: to a file or a pipe it prints one screen "
             "after the other.",
    .options = options,
};
