// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/progress.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/offers.h"
#include "tools/verbs/remote_options.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *store;
    bool json;
    struct fl_verify_options options;
    bool quick;
    struct remote_options remote;
};

static const struct verb_argument arguments[] = {
    {.name = "IMAGE", .hint = CLI_IMAGE, .many = true},
    {.name = NULL},
};
static const struct cli_option options[] = {
    CLI_STORE(struct arguments, store),
    CLI_THREADS(struct arguments, options.threads),
    CLI_JSON(struct arguments, json),
    CLI_FLAG(struct arguments, quick, .name = "quick",
             .help = "of a remote store: only look whether all files are there, in their size"),
    REMOTE_OPTIONS(struct arguments, remote),
    CLI_END,
};

static int parse_verify(int argc, char **argv, struct arguments *args)
{
    int status = cli_parse(&verb_verify, args, argc, argv);
    for (int i = optind; status == EXIT_DONE && i < argc; i++) {
        if (!fl_name_valid(argv[i]))
            status = cli_usage("verify", "'%s' cannot name an image", argv[i]);
    }
    if (status == EXIT_DONE && args->quick && !args->remote.url)
        status = cli_usage("verify", "--quick goes with --remote");
    if (status == EXIT_DONE && optind < argc) {
        args->options.names = (const char *const *)&argv[optind];
        args->options.names_count = (size_t)(argc - optind);
    }
    return status;
}

static int print_verify_json(const struct fl_verify_result *result, json_t *list,
                             const struct offers *offers)
{
    json_t *object = json_pack(
        "{s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:f,s:O,s:o}", "ok", result->bad == 0, "images",
        (json_int_t)result->images, "packs", (json_int_t)result->packs, "frames",
        (json_int_t)result->frames, "pages", (json_int_t)result->pages, "traces",
        (json_int_t)result->traces, "companions", (json_int_t)result->companions, "unneeded_frames",
        (json_int_t)result->unneeded_frames, "list_not_written", result->list_not_written,
        "seconds", result->seconds, "bad", list, "offers", offers_json(offers));
    return store_print_json("verify", object);
}

static void print_verify_advice(const struct fl_verify_result *result)
{
    if (result->unneeded_frames > 0)
        printf("%" PRIu64 " damaged frame%s that no image needs go%s when gc removes the pack\n",
               result->unneeded_frames, cli_s(result->unneeded_frames),
               result->unneeded_frames == 1 ? "es" : "");
    if (result->bad > 0)
        puts("faultline repair heals images with pages from the store, from a memory file (--from) "
             "or from another store (--from-store)");
}

static void print_not_verified(const struct offers *offers)
{
    for (size_t i = 0; i < offers->count; i++) {
        if (offers->all[i].left)
            printf("not verified: %s: it was left by a process that was killed before it was "
                   "packed; 'faultline gc' removes it\n",
                   offers->all[i].name);
        else
            printf("not verified: %s: it is on offer, and cannot be before it is published\n",
                   offers->all[i].name);
    }
}

static int verify_store(struct fl_store *store, struct arguments *args, const struct offers *offers,
                        struct store_found *found)
{
    struct fl_verify_result result;
    struct fl_error error;
    struct progress progress;
    found->progress = &progress;
    args->options.bad = store_report_bad;
    args->options.bad_arg = found;
    args->options.progress = progress_begin(&progress, "verifying", true);
    int r = fl_store_verify(store, &args->options, &result, &error);
    progress_end(&progress);
    if (r < 0)
        return cli_fail("verify", "%s", error.text);
    if (args->json && print_verify_json(&result, found->bad, offers) != EXIT_DONE)
        return EXIT_FAILED;
    if (!args->json)
        printf("%s: %" PRIu64 " image%s, %" PRIu64 " pack%s, %" PRIu64 " frame%s, %" PRIu64
               " page%s in %.2f s; %" PRIu64 " bad\n",
               result.bad == 0 ? "ok" : "BAD", result.images, cli_s(result.images), result.packs,
               cli_s(result.packs), result.frames, cli_s(result.frames), result.pages,
               cli_s(result.pages), result.seconds, result.bad);
    if (!args->json && !args->options.names)
        print_not_verified(offers);
    if (!args->json)
        print_verify_advice(&result);
    return result.bad == 0 ? EXIT_DONE : EXIT_FAILED;
}

static int cmd_verify(int argc, char **argv)
{
    struct arguments args = {.store = NULL};
    struct store_found found = {.bad = NULL};
    struct offers offers;
    int status = parse_verify(argc, argv, &args);
    if (status != EXIT_DONE)
        return status;
    if (args.remote.url) {
        const char *const extra[] = {args.json ? "json=1" : NULL, args.quick ? "quick=1" : NULL};
        return remote_run("verify", &args.remote, extra, 2, &argv[optind], argc - optind);
    }
    struct fl_store *store = store_open_or_say("verify", args.store, false);
    if (!store)
        return EXIT_FAILED;
    if (args.json)
        found.bad = json_array();
    status = offers_find("verify", store, &offers);
    if (status == EXIT_DONE)
        status = verify_store(store, &args, &offers, &found);
    offers_free(&offers);
    json_decref(found.bad);
    fl_store_close(store);
    return status;
}

const struct verb verb_verify = {
    .name = "verify",
    .run = cmd_verify,
    .summary = "check every byte of a store against its checksums",
    .synopsis = {"[--store DIR] [OPTION...] [IMAGE...]", "--remote URL [OPTION...] [IMAGE...]"},
    .about =
        "Checks every byte of the store, or of the named images, against its "
        "checksums, and every page against its SHA-256. Names each bad object "
        "and the images that need it. What is on offer, and packed only in part, cannot be "
        "verified before it is published, and is named.\n"
        "\n"
        "Of a remote store, it reads every file that an image needs, and compares its SHA-256.",
    .status = "0 if all is right, 1 if not.",
    .arguments = arguments,
    .options = options,
};
