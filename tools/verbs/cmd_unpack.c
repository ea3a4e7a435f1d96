// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <stdio.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/progress.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/verbs.h"

enum { THREADS_MAX = 256 };

static const char help[] =
    "usage: faultline unpack [--store DIR] [OPTION...] IMAGE OUTFILE\n"
    "\n"
    "Writes the image back as the memory file that it was made from, bit for bit. Zero\n"
    "pages become holes. The file appears complete or not at all.\n"
    "\n" STORE_HELP "  --force         replace an existing file (otherwise that is an error)\n"
    "  --threads N     number of threads (default: one a core)\n"
    "  -h, --help      print this help\n";

struct arguments {
    const char *store;
    struct fl_unpack_options options;
};

static int parse_unpack(int argc, char **argv, struct arguments *args)
{
    const struct cli_option options[] = {
        CLI_TEXT("store", &args->store),
        CLI_FLAG("force", &args->options.force),
        CLI_COUNT("threads", &args->options.threads, 1, THREADS_MAX),
        CLI_END,
    };
    int status = cli_parse("unpack", help, options, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (argc - optind != 2)
        return cli_usage("unpack", "an image and an output file are needed");
    args->options.name = argv[optind];
    args->options.path = argv[optind + 1];
    return EXIT_DONE;
}

int cmd_unpack(int argc, char **argv)
{
    struct arguments args = {.store = NULL};
    struct progress progress;
    struct fl_unpack_result result;
    struct fl_error error;
    char bytes[32];
    char data[32];
    int status = parse_unpack(argc, argv, &args);
    if (status != EXIT_DONE)
        return status;
    struct fl_store *store = store_open_or_say("unpack", store_dir(args.store), false);
    if (!store)
        return EXIT_FAILED;
    args.options.progress = progress_begin(&progress, "unpacking", true);
    int r = fl_store_unpack(store, &args.options, &result, &error);
    progress_end(&progress);
    fl_store_close(store);
    if (r < 0)
        return cli_fail("unpack", "%s", error.text);
    printf("%s: %s, of these %s data, in %.2f s\n", cli_plain(argv[optind + 1]),
           cli_format_bytes(result.bytes, bytes, sizeof(bytes)),
           cli_format_bytes(result.data_bytes, data, sizeof(data)), result.seconds);
    return EXIT_DONE;
}
