// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/verbs/verbs.h"

struct order {
    const char *control;
    const char *huge;
    bool json;
};

static const struct verb_argument arguments[] = {{.name = "VM"}, {.name = NULL}};
static const struct cli_option options[] = {
    CLI_TEXT(struct order, huge, .name = "set", .choices = "off|after-replay",
             .help = "what is to be done with the VM's working set from now on",
             .otherwise = "after-replay"),
    CLI_FLAG(struct order, json, .name = "json",
             .help = "print the server's answer as JSON (docs/control-api.md)"),
    CLI_CONTROL(struct order, control),
    CLI_END,
};

static int cmd_huge(int argc, char **argv)
{
    struct order order = {.huge = "after-replay"};
    uint64_t vm = 0;
    json_t *answer = NULL;
    int status = cli_parse(&verb_huge, &order, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (argc - optind != 1)
        return cli_usage("huge", "it needs the number of one VM, as faultline status shows it");
    if (cli_parse_number(argv[optind], 1, INT64_MAX, &vm) != 0)
        return cli_usage("huge", "'%s' is not the number of a VM", argv[optind]);
    json_t *body = json_pack("{s:I, s:s}", "vm", (json_int_t)vm, "huge", order.huge);
    status = control_ask_by("huge", order.control, "POST", "/v1/huge", body, &answer);
    json_decref(body);
    if (status == EXIT_DONE && order.json) {
        json_dumpf(answer, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(answer);
    return status;
}

const struct verb verb_huge = {
    .name = "huge",
    .run = cmd_huge,
    .summary = "have a VM's working set put together to pages of 2 MiB, or no more",
    .synopsis = {"VM [OPTION...]"},
    .about =
        "Says for one VM that runs what serve --huge says for all, and listen --huge for those "
        "of one socket. What is put together already stays so. Of a VM whose replay has ended "
        "before, ranges into which the shared page of zeros was put stay in pages of 4 KiB.",
    .arguments = arguments,
    .options = options,
};
