// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <stdio.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/verbs.h"

static const char help[] =
    "usage: faultline rm [--store DIR] IMAGE...\n"
    "\n"
    "Removes images from the store. VMs that use one keep it. 'faultline gc' gives back\n"
    "the space.\n"
    "\n" STORE_HELP "  -h, --help      print this help\n";

static int parse_rm(int argc, char **argv, const char **ret_store)
{
    const struct cli_option options[] = {CLI_TEXT("store", ret_store), CLI_END};
    int status = cli_parse("rm", help, options, argc, argv);
    if (status != EXIT_DONE)
        return status;
    return optind < argc ? EXIT_DONE : cli_usage("rm", "an image is needed");
}

int cmd_rm(int argc, char **argv)
{
    const char *dir = NULL;
    int status = parse_rm(argc, argv, &dir);
    if (status != EXIT_DONE)
        return status;
    struct fl_store *store = store_open_or_say("rm", store_dir(dir), false);
    if (!store)
        return EXIT_FAILED;
    for (int i = optind; i < argc; i++) {
        struct fl_error error;
        if (fl_store_rm(store, argv[i], &error) < 0)
            status = cli_fail("rm", "%s", error.text);
    }
    fl_store_close(store);
    return status;
}
