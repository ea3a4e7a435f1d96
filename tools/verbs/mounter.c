// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <limits.h>
#include <unistd.h>

#include "engine/host/fuse_mounter.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/verbs/verbs.h"

// Standard input is the connection (StandardInput=socket of faultline-files@.service).
static int cmd_mounter(int argc, char **argv)
{
    char path[PATH_MAX];
    char reason[FL_FUSE_REASON] = "";
    int parsed = cli_parse(&verb_mounter, NULL, argc, argv);
    if (parsed != EXIT_DONE)
        return parsed;
    if (optind + 1 != argc)
        return cli_usage("mounter", "it needs the directory to mount at");
    int error = fl_fuse_place_path(argv[optind], path);
    if (error)
        return cli_fail_errno("mounter", error, "cannot use %s", argv[optind]);
    error = fl_fuse_mounter_serve(STDIN_FILENO, path, reason);
    return error ? cli_fail("mounter", "%s", reason) : EXIT_DONE;
}

static const struct cli_option options[] = {CLI_END};

// Only the service manager calls it: docs/files.md.
const struct verb verb_mounter = {.name = "mounter", .run = cmd_mounter, .options = options};
