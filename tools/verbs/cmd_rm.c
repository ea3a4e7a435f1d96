// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <stdio.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/remote_options.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *store;
    bool json;
    struct remote_options remote;
};

static const struct verb_argument arguments[] = {
    {.name = "IMAGE", .hint = CLI_IMAGE, .many = true},
    {.name = NULL},
};
static const struct cli_option options[] = {
    CLI_STORE(struct arguments, store),
    CLI_JSON(struct arguments, json),
    REMOTE_OPTIONS(struct arguments, remote),
    CLI_END,
};

static int parse_rm(int argc, char **argv, struct arguments *args)
{
    int status = cli_parse(&verb_rm, args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    return optind < argc ? EXIT_DONE : cli_usage("rm", "an image is needed");
}

static int cmd_rm(int argc, char **argv)
{
    struct arguments args = {.store = NULL};
    int status = parse_rm(argc, argv, &args);
    if (status != EXIT_DONE)
        return status;
    if (args.remote.url)
        return remote_run("rm", &args.remote, (const char *[]){args.json ? "json=1" : NULL}, 1,
                          &argv[optind], argc - optind);
    struct fl_store *store = store_open_or_say("rm", args.store, false);
    if (!store)
        return EXIT_FAILED;
    json_t *removed = args.json ? json_array() : NULL;
    for (int i = optind; i < argc; i++) {
        struct fl_error error;
        if (fl_store_rm(store, argv[i], &error) < 0)
            status = cli_fail("rm", "%s", error.text);
        else if (args.json)
            json_array_append_new(removed, json_string(argv[i]));
    }
    fl_store_close(store);
    if (!args.json)
        return status;
    int printed = store_print_json("rm", json_pack("{s:o}", "removed", removed));
    return status == EXIT_DONE ? printed : status;
}

const struct verb verb_rm = {
    .name = "rm",
    .run = cmd_rm,
    .summary = "remove an image from a store",
    .synopsis = {"[--store DIR] [--json] IMAGE...", "--remote URL [OPTION...] IMAGE..."},
    .about = "Removes images from the store. VMs that use one keep it. 'faultline "
             "gc' gives back the space.",
    .arguments = arguments,
    .options = options,
};
