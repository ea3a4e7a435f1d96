// SPDX-License-Identifier: Apache-2.0
#include <faultline_version.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/dispatch.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/help.h"
#include "tools/cli/parse.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/verbs.h"

struct arguments {
    bool json;
};

static const struct verb_argument arguments[] = {{.name = "VERB", .hint = CLI_VERB},
                                                 {.name = NULL}};
static const struct cli_option options[] = {
    CLI_JSON(struct arguments, json),
    CLI_END,
};

// Returns all verbs that users call, or the one.
static json_t *describe(const struct verb *one)
{
    json_t *list = json_array();
    for (const struct verb *const *verb = verb_table; *verb; verb++) {
        if (one ? *verb == one : (*verb)->summary != NULL)
            json_array_append_new(list, help_verb_json(*verb));
    }
    return json_pack("{s:s,s:o}", "version", FAULTLINE_VERSION, "verbs", list);
}

static int cmd_help(int argc, char **argv)
{
    struct arguments args = {.json = false};
    int status = cli_parse(&verb_help, &args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (argc - optind > 1)
        return cli_usage("help", "it takes the name of one verb");
    const char *name = argv[optind];
    const struct verb *verb = name ? verb_find(verb_table, name) : NULL;
    if (name && (!verb || !verb->summary))
        return cli_usage("help", "there is no verb '%s'", name);
    if (args.json)
        return store_print_json("help", describe(verb));
    if (verb)
        help_print_verb(stdout, verb);
    else
        help_print_verbs(stdout, verb_table);
    return EXIT_DONE;
}

const struct verb verb_help = {
    .name = "help",
    .run = cmd_help,
    .summary = "tell what a verb does and which options it has",
    .synopsis = {"[--json] [VERB]"},
    .about = "Lists the verbs, or prints the help of one.",
    .arguments = arguments,
    .options = options,
};
