// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>

#include "tools/cli/cli.h"
#include "tools/cli/codec_options.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/progress.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/optimize_report.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *store;
    bool json;
    struct fl_optimize_options options;
};

static const struct verb_argument arguments[] = {{.name = "IMAGE", .hint = CLI_IMAGE},
                                                 {.name = NULL}};
static const struct cli_option options[] = {
    CLI_STORE(struct arguments, store),
    CLI_FLAG(struct arguments, options.dry_run, .name = "dry-run",
             .help = "say what it will cost and gain, and change nothing"),
    CLI_CODEC(struct arguments, options.compression, .otherwise = "lz4",
              .help = "what compresses the pages of the trace"),
    CLI_LEVEL(struct arguments, options.compression, .otherwise = "9 for lz4, 3 for zstd",
              .help = "lz4 1 to 12, from 3 on smaller and as fast to read, but about 20 times as "
                      "slow to write; zstd 1 to 19"),
    CLI_JSON(struct arguments, json),
    CLI_END,
};

static int parse_optimize(int argc, char **argv, struct arguments *args)
{
    int status = cli_parse(&verb_optimize, args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (argc - optind != 1)
        return cli_usage("optimize", "exactly one image is needed");
    args->options.name = argv[optind];
    return codec_check("optimize", args->options.compression, FL_CODEC_LZ4);
}

static int cmd_optimize(int argc, char **argv)
{
    struct arguments args = {.store = NULL};
    struct progress progress;
    struct fl_optimize_result result;
    struct fl_error error;
    int status = parse_optimize(argc, argv, &args);
    if (status != EXIT_DONE)
        return status;
    struct fl_store *store = store_open_or_say("optimize", args.store, false);
    if (!store)
        return EXIT_FAILED;
    args.options.progress = progress_begin(&progress, "laying out", true);
    int r = fl_store_optimize(store, &args.options, &result, &error);
    progress_end(&progress);
    fl_store_close(store);
    if (r < 0)
        return cli_fail("optimize", "%s", error.text);
    if (args.json)
        return store_print_json("optimize", optimize_json(args.options.name, &result));
    optimize_print("optimize", args.store, args.options.name, &result);
    return EXIT_DONE;
}

const struct verb verb_optimize = {
    .name = "optimize",
    .run = cmd_optimize,
    .summary = "lay an image out by its trace",
    .synopsis = {"[--store DIR] [OPTION...] IMAGE"},
    .about = "Lays an image out by its trace: stores the pages of the trace again, "
             "beside each other and in the order of touch, so that one sweep reads "
             "them ahead. All other pages stay where they are, shared with other "
             "images, and the content stays the same. The new layout replaces the "
             "old one at once; running VMs keep the old one. A second run changes "
             "nothing unless the trace has changed.\n"
             "\n"
             "With --dry-run it says before what it will read and write at most, what the new "
             "pack takes, and how much less replay will have to seek. The sizes of what is not "
             "compressed yet are estimates.",
    .arguments = arguments,
    .options = options,
};
