// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <stdio.h>

#include "tools/cli/background.h"
#include "tools/cli/cli.h"
#include "tools/cli/codec_options.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/progress.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/rewrite_report.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *store;
    bool all, json;
    struct fl_recompress_options options;
};

static const struct verb_argument arguments[] = {{.name = "IMAGE", .hint = CLI_IMAGE, .many = true},
                                                 {.name = NULL}};
static const struct cli_option options[] = {
    CLI_STORE(struct arguments, store),
    CLI_FLAG(struct arguments, all, .name = "all", .help = "all images of the store"),
    CLI_CODEC(struct arguments, options.compression, .otherwise = "zstd",
              .help = "what compresses the pages from now on: zstd takes less space, lz4 is read "
                      "fastest"),
    CLI_LEVEL(struct arguments, options.compression, .otherwise = "9",
              .help = "zstd 1 to 19; lz4 1 to 12. Higher ones are smaller and slower to write, not "
                      "slower to read"),
    CLI_SIZE(struct arguments, options.rate, .name = "rate", .value = "SIZE",
             .otherwise = "no limit",
             .help = "read and write at most so many bytes a second, such as 20M"),
    CLI_COUNT(struct arguments, options.threads, .name = "threads", .value = "N", .low = 1,
              .high = 256, .preset = "1", .help = "number of threads"),
    CLI_JSON(struct arguments, json),
    CLI_END,
};

static int parse_recompress(int argc, char **argv, struct arguments *args)
{
    struct fl_compression usual = {FL_CODEC_ZSTD, FL_ZSTD_LEVEL_SMALL};
    int status = cli_parse(&verb_recompress, args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (args->all != (optind == argc))
        return cli_usage("recompress", args->all ? "--all and images do not go together"
                                                 : "either images are needed, or --all");
    args->options.names = args->all ? NULL : (const char *const *)&argv[optind];
    args->options.names_count = args->all ? 0 : (size_t)(argc - optind);
    status = codec_check("recompress", args->options.compression, usual.codec);
    if (args->options.compression.codec == FL_CODEC_LZ4)
        usual = (struct fl_compression){FL_CODEC_LZ4, FL_LZ4_LEVEL_SMALL};
    args->options.compression = fl_compression_or(args->options.compression, usual);
    return status;
}

static int cmd_recompress(int argc, char **argv)
{
    struct arguments args = {.store = NULL};
    struct progress progress;
    struct fl_rewrite_result result;
    struct fl_error error;
    int status = parse_recompress(argc, argv, &args);
    if (status != EXIT_DONE)
        return status;
    struct fl_store *store = store_open_or_say("recompress", args.store, false);
    if (!store)
        return EXIT_FAILED;
    int before = background_begin();
    args.options.progress = progress_begin(&progress, "recompressing", true);
    int r = fl_store_recompress(store, &args.options, &result, &error);
    progress_end(&progress);
    background_end(before);
    fl_store_close(store);
    if (r < 0)
        return cli_fail("recompress", "%s", error.text);
    rewrite_warn("recompress", args.store, &result);
    if (args.json)
        return store_print_json("recompress", rewrite_json(&result));
    rewrite_print("recompressed", &result);
    if (result.packs_rewritten > 0)
        puts("the old packs stay until faultline gc removes them");
    return EXIT_DONE;
}

const struct verb verb_recompress = {
    .name = "recompress",
    .run = cmd_recompress,
    .summary = "compress images in another way",
    .synopsis = {"[--store DIR] [OPTION...] IMAGE...", "[--store DIR] [OPTION...] --all"},
    .about =
        "Compresses the packs of images in another way, and gives each image that needs one of "
        "them, also one that is not named, a new map, at once. Contents, traces and what is shared "
        "stay the same, and pages that no image needs any more are left out. Running VMs keep what "
        "they have open. A pack that has the codec already is left alone unless a sample of its "
        "frames says that at least 2 % would be saved, so a second run does little.\n"
        "\n"
        "It may run beside a server and all other verbs; only gc waits for it. It gives way to "
        "others on the host. The old packs stay until gc removes them, so the store grows "
        "meanwhile. A run that is interrupted has done what it has done, and another one does the "
        "rest.",
    .arguments = arguments,
    .options = options,
};
