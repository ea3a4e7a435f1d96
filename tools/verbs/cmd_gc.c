// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "tools/cli/background.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/progress.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/remote_options.h"
#include "tools/verbs/rewrite_report.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *store;
    bool json;
    struct fl_gc_options options;
    struct remote_options remote;
    struct fl_compact_options compact;
};

static const struct cli_option options[] = {
    CLI_STORE(struct arguments, store),
    CLI_FLAG(struct arguments, options.dry_run, .name = "dry-run",
             .help = "print what would be done, and remove nothing"),
    CLI_COUNT(struct arguments, compact.percent, .name = "compact", .value = "PERCENT", .low = 1,
              .high = 100, .otherwise = "none is rewritten",
              .help = "first rewrite packs of which so many percent of the pages, or more, are of "
                      "no use to any image"),
    CLI_SIZE(struct arguments, compact.rate, .name = "rate", .value = "SIZE",
             .otherwise = "no limit",
             .help = "for --compact: read and write at most so many bytes a second, such as 20M"),
    CLI_COUNT(struct arguments, compact.threads, .name = "threads", .value = "N", .low = 1,
              .high = 256, .preset = "1", .help = "number of threads of --compact"),
    CLI_FLAG(struct arguments, options.rebuild_index, .name = "rebuild-index",
             .help = "build the index again from the packs"),
    CLI_JSON(struct arguments, json),
    REMOTE_OPTIONS(struct arguments, remote),
    CLI_END,
};

static int parse_gc(int argc, char **argv, struct arguments *args)
{
    int status = cli_parse(&verb_gc, args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (args->remote.url && args->options.rebuild_index)
        return cli_usage("gc", "a remote store has no index to be built again");
    if (args->remote.url && args->compact.percent > 0)
        return cli_usage("gc", "packs of a remote store cannot be compacted there");
    return optind == argc ? EXIT_DONE : cli_usage("gc", "it takes no argument '%s'", argv[optind]);
}

// rewritten is NULL if nothing was to be compacted.
static int print_gc_json(const struct fl_gc_result *result,
                         const struct fl_rewrite_result *rewritten, bool dry_run)
{
    return store_print_json(
        "gc",
        json_pack("{s:o,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:b}", "compacted",
                  rewritten ? rewrite_json(rewritten) : json_null(), "dry_run", dry_run,
                  "packs_removed", (json_int_t)result->packs_removed, "packs_kept",
                  (json_int_t)result->packs_kept, "temporaries_removed",
                  (json_int_t)result->temporaries_removed, "traces_removed",
                  (json_int_t)result->traces_removed, "bytes_freed",
                  (json_int_t)result->bytes_freed, "dead_bytes", (json_int_t)result->dead_bytes,
                  "packs_indexed", (json_int_t)result->packs_indexed, "index_rebuilt",
                  result->index_rebuilt, "index_not_updated", result->index_not_updated));
}

static void print_gc_text(const struct fl_gc_result *result, bool dry_run, const char *dir)
{
    char freed[32];
    char dead[32];
    printf("%s %s: %" PRIu64 " pack%s, %" PRIu64 " temporary file%s, %" PRIu64 " trace%s\n",
           dry_run ? "would free" : "freed",
           cli_format_bytes(result->bytes_freed, freed, sizeof(freed)), result->packs_removed,
           cli_s(result->packs_removed), result->temporaries_removed,
           cli_s(result->temporaries_removed), result->traces_removed,
           cli_s(result->traces_removed));
    printf("%" PRIu64 " pack%s stay%s, with %s that no image refers to\n", result->packs_kept,
           cli_s(result->packs_kept), result->packs_kept == 1 ? "s" : "",
           cli_format_bytes(result->dead_bytes, dead, sizeof(dead)));
    if (result->index_rebuilt)
        puts("the index was built again");
    else if (result->packs_indexed > 0)
        printf("the index did not know %" PRIu64 " pack%s\n", result->packs_indexed,
               cli_s(result->packs_indexed));
    store_say_index("gc", dir, "the store is collected", false, false, result->index_error);
}

// The old packs go with the collection that follows.
static int compact(struct fl_store *store, struct arguments *args,
                   struct fl_rewrite_result *ret_result)
{
    struct progress progress;
    struct fl_error error;
    int before = background_begin();
    args->compact.dry_run = args->options.dry_run;
    args->compact.progress = progress_begin(&progress, "compacting", true);
    int r = fl_store_compact(store, &args->compact, ret_result, &error);
    progress_end(&progress);
    background_end(before);
    if (r < 0)
        return cli_fail("gc", "%s", error.text);
    rewrite_warn("gc", args->store, ret_result);
    if (!args->json)
        rewrite_print(args->options.dry_run ? "would compact" : "compacted", ret_result);
    return EXIT_DONE;
}

static int cmd_gc(int argc, char **argv)
{
    struct arguments args = {.store = NULL};
    struct progress progress;
    struct fl_gc_result result;
    struct fl_rewrite_result rewritten;
    struct fl_error error;
    int status = parse_gc(argc, argv, &args);
    if (status != EXIT_DONE)
        return status;
    if (args.remote.url) {
        const char *const extra[] = {args.json ? "json=1" : NULL,
                                     args.options.dry_run ? "dry-run=1" : NULL};
        return remote_run("gc", &args.remote, extra, 2, NULL, 0);
    }
    struct fl_store *store = store_open_or_say("gc", args.store, false);
    if (!store)
        return EXIT_FAILED;
    status = args.compact.percent > 0 ? compact(store, &args, &rewritten) : EXIT_DONE;
    if (status != EXIT_DONE) {
        fl_store_close(store);
        return status;
    }
    args.options.progress = progress_begin(&progress, "collecting", false);
    int r = fl_store_gc(store, &args.options, &result, &error);
    progress_end(&progress);
    fl_store_close(store);
    if (r < 0)
        return cli_fail("gc", "%s", error.text);
    if (args.json)
        return print_gc_json(&result, args.compact.percent > 0 ? &rewritten : NULL,
                             args.options.dry_run);
    print_gc_text(&result, args.options.dry_run, args.store);
    return EXIT_DONE;
}

const struct verb verb_gc = {
    .name = "gc",
    .run = cmd_gc,
    .summary = "give back the space of packs that no image refers to",
    .synopsis = {"[--store DIR] [OPTION...]", "--remote URL [OPTION...]"},
    .about =
        "Gives back the space of packs that no image refers to, and of files "
        "that interrupted runs have left behind. Waits until no pack or verify "
        "runs. Images that are open stay readable.\n"
        "\n"
        "It removes whole packs: pages of no use in a pack that is needed otherwise stay, and it "
        "says how much that is. --compact first writes the rest of such packs anew and gives their "
        "images new maps, as recompress does, while packs are added and VMs served. That needs "
        "room for what stays of them.\n"
        "\n"
        "In a remote store, what no image refers to is condemned first, and removed by a run a "
        "day later or more, so that a push never loses what it relies on.",
    .options = options,
};
