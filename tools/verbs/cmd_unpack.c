// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <stdio.h>

#include "tools/cli/about_options.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/progress.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *store;
    bool json;
    struct about_with with;
    struct fl_unpack_options options;
};

static const struct verb_argument arguments[] = {
    {.name = "IMAGE", .hint = CLI_IMAGE},
    {.name = "OUTFILE", .hint = CLI_FILE},
    {.name = NULL},
};
static const struct cli_option options[] = {
    CLI_STORE(struct arguments, store),
    CLI_OTHER(struct arguments, with, take_with, .name = "with", .value = "NAME=FILE",
              .hint = CLI_FILE, .otherwise = "memory alone",
              .help = "write this companion of the image to FILE; may be given several times. "
                      "Without OUTFILE only companions are written"),
    CLI_FLAG(struct arguments, options.force, .name = "force",
             .help = "replace existing files (otherwise that is an error)"),
    CLI_THREADS(struct arguments, options.threads),
    CLI_JSON(struct arguments, json),
    CLI_END,
};

static int parse_unpack(int argc, char **argv, struct arguments *args)
{
    int status = cli_parse(&verb_unpack, args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (argc - optind != 2 && (argc - optind != 1 || args->with.count == 0))
        return cli_usage("unpack", "an image and an output file are needed");
    args->options.name = argv[optind];
    args->options.path = argc - optind == 2 ? argv[optind + 1] : NULL;
    args->options.with = args->with.files;
    args->options.with_count = args->with.count;
    return EXIT_DONE;
}

// A path need not be UTF-8, which JSON needs: then it is null.
static json_t *path_json(const char *path)
{
    json_t *string = path ? json_string(path) : NULL;
    return string ? string : json_null();
}

static int print_unpacked(const struct arguments *args, char *path,
                          const struct fl_unpack_result *result)
{
    char bytes[32];
    char data[32];
    if (args->json)
        return store_print_json(
            "unpack", json_pack("{s:s,s:o,s:I,s:I,s:f}", "name", args->options.name, "path",
                                path_json(path), "bytes", (json_int_t)result->bytes, "data_bytes",
                                (json_int_t)result->data_bytes, "seconds", result->seconds));
    for (size_t i = 0; i < args->with.count; i++)
        printf("%s: %s\n", cli_plain((char *)args->with.files[i].path), args->with.files[i].name);
    if (path)
        printf("%s: %s, of these %s data, in %.2f s\n", cli_plain(path),
               cli_format_bytes(result->bytes, bytes, sizeof(bytes)),
               cli_format_bytes(result->data_bytes, data, sizeof(data)), result->seconds);
    return EXIT_DONE;
}

static int cmd_unpack(int argc, char **argv)
{
    struct arguments args = {.store = NULL};
    struct progress progress;
    struct fl_unpack_result result;
    struct fl_error error;
    int status = parse_unpack(argc, argv, &args);
    if (status != EXIT_DONE)
        return status;
    struct fl_store *store = store_open_or_say("unpack", args.store, false);
    if (!store)
        return EXIT_FAILED;
    args.options.progress = progress_begin(&progress, "unpacking", true);
    int r = fl_store_unpack(store, &args.options, &result, &error);
    progress_end(&progress);
    fl_store_close(store);
    if (r < 0)
        return cli_fail("unpack", "%s", error.text);
    return print_unpacked(&args, args.options.path ? argv[optind + 1] : NULL, &result);
}

const struct verb verb_unpack = {
    .name = "unpack",
    .run = cmd_unpack,
    .summary = "write an image back as a memory file",
    .synopsis = {"[--store DIR] [OPTION...] IMAGE OUTFILE",
                 "[--store DIR] [OPTION...] --with NAME=FILE... IMAGE"},
    .about = "Writes the image back as the memory file that it was made from, bit "
             "for bit, and companions of it (see pack --help). Zero pages become holes. Each file "
             "appears complete or not at all.",
    .arguments = arguments,
    .options = options,
};
