// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/cli/about_options.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/ls_tree.h"
#include "tools/verbs/offers.h"
#include "tools/verbs/remote_options.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *store;
    bool json;
    bool names;
    bool tree;
    struct remote_options remote;
};

static const struct cli_option options[] = {
    CLI_STORE(struct arguments, store),
    CLI_JSON(struct arguments, json),
    CLI_FLAG(struct arguments, names, .name = "names",
             .help = "print only the images' names, one a line"),
    CLI_FLAG(struct arguments, tree, .name = "tree",
             .help = "print each image below its parent, the one that its VM was restored from"),
    REMOTE_OPTIONS(struct arguments, remote),
    CLI_END,
};

static int parse_ls(int argc, char **argv, struct arguments *args)
{
    int status = cli_parse(&verb_ls, args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (args->json + args->names + args->tree > 1)
        return cli_usage("ls", "--json, --names and --tree exclude each other");
    if (args->remote.url && args->tree)
        return cli_usage("ls", "--remote and --tree exclude each other");
    return optind == argc ? EXIT_DONE : cli_usage("ls", "it takes no argument '%s'", argv[optind]);
}

static void print_ls_header(void)
{
    printf("%-32s %12s %11s %11s %11s %11s %6s %11s %11s  %s\n", "IMAGE", "SIZE", "ZERO",
           "DUPLICATE", "SHARED", "STORED", "PACKS", "OWN DISK", "SHARED DISK", "CREATED");
}

static void print_ls_row(const struct fl_image_info *info, const struct fl_image_space *space)
{
    char bytes[32];
    char own[32];
    char shared[32];
    char created[32];
    store_format_time(info->created, created, sizeof(created));
    printf("%-32s %12s %11" PRIu64 " %11" PRIu64 " %11" PRIu64 " %11" PRIu64 " %6" PRIu64
           " %11s %11s  %s",
           info->name, cli_format_bytes(info->bytes, bytes, sizeof(bytes)), info->zero_pages,
           info->duplicate_pages, info->shared_pages, info->stored_pages, info->packs,
           cli_format_bytes(space->own_bytes, own, sizeof(own)),
           cli_format_bytes(space->shared_bytes, shared, sizeof(shared)), created);
    if (info->packs_missing > 0)
        printf("  CANNOT BE USED: %" PRIu64 " pack%s missing", info->packs_missing,
               cli_s(info->packs_missing));
    putchar('\n');
}

static json_t *ls_image_json(struct fl_store *store, const struct fl_image_info *info,
                             const struct fl_image_space *space)
{
    struct fl_image_about about = {.companions = NULL};
    json_t *object = store_image_json(info);
    if (object && fl_store_image_about(store, info->name, &about, NULL) == 0) {
        about_add_json(object, &about);
        fl_image_about_free(&about);
    }
    if (object) {
        json_object_set_new(object, "own_bytes", json_integer((json_int_t)space->own_bytes));
        json_object_set_new(object, "shared_bytes", json_integer((json_int_t)space->shared_bytes));
    }
    return object;
}

// Lists the named images. An image that cannot be read is a sentence on stderr, and the others are
// listed all the same.
static int list_images(struct fl_store *store, char **names, size_t count,
                       const struct fl_image_space *space, json_t *array)
{
    int status = EXIT_DONE;
    if (!array)
        print_ls_header();
    for (size_t i = 0; i < count; i++) {
        struct fl_image_info info;
        struct fl_error error;
        int r = fl_store_image_info(store, names[i], &info, &error);
        if (r == -ENOENT) // removed since they were listed
            continue;
        if (r < 0) {
            status = cli_fail("ls", "%s", error.text);
            continue;
        }
        if (array)
            json_array_append_new(array, ls_image_json(store, &info, &space[i]));
        else
            print_ls_row(&info, &space[i]);
    }
    return status;
}

static int list_with_space(struct fl_store *store, char **names, size_t count, json_t *array)
{
    struct fl_error error;
    struct fl_image_space *space = calloc(count + 1, sizeof(*space));
    if (!space)
        return cli_fail("ls", "there is no memory for the list");
    int status = fl_store_space(store, names, count, space, &error) < 0
                     ? cli_fail("ls", "%s", error.text)
                     : list_images(store, names, count, space, array);
    free(space);
    return status;
}

static void print_offers(const struct offers *offers)
{
    char text[OFFER_TEXT];
    char bytes[32];
    for (size_t i = 0; i < offers->count; i++) {
        const struct fl_offer_info *offer = &offers->all[i];
        printf("%-32s %12s  %s\n", offer->name,
               offer->bytes ? cli_format_bytes(offer->bytes, bytes, sizeof(bytes)) : "-",
               offer_explain(offer, text));
    }
}

static int list_store(struct fl_store *store, const struct arguments *args)
{
    struct fl_error error;
    struct offers offers;
    char **names;
    size_t count;
    // First: one that is published meanwhile is among the images.
    int found = offers_find("ls", store, &offers);
    if (fl_store_image_names(store, &names, &count, &error) < 0) {
        offers_free(&offers);
        return cli_fail("ls", "%s", error.text);
    }
    json_t *array = args->json ? json_array() : NULL;
    for (size_t i = 0; args->names && i < count; i++)
        puts(names[i]);
    int status = args->names  ? EXIT_DONE
                 : args->tree ? ls_print_tree(store, names, count)
                              : list_with_space(store, names, count, array);
    fl_store_free_names(names, count);
    if (args->json) {
        int printed = store_print_json(
            "ls", json_pack("{s:o, s:o}", "images", array, "offers", offers_json(&offers)));
        status = status == EXIT_DONE ? printed : status;
    } else if (!args->names) {
        print_offers(&offers);
    }
    offers_free(&offers);
    return status == EXIT_DONE ? found : status;
}

static int cmd_ls(int argc, char **argv)
{
    struct arguments args = {.store = NULL};
    int status = parse_ls(argc, argv, &args);
    if (status != EXIT_DONE)
        return status;
    if (args.remote.url) {
        const char *const extra[] = {args.json ? "json=1" : NULL, args.names ? "names=1" : NULL};
        return remote_run("ls", &args.remote, extra, 2, NULL, 0);
    }
    struct fl_store *store = store_open_or_say("ls", args.store, false);
    if (!store)
        return EXIT_FAILED;
    status = list_store(store, &args);
    fl_store_close(store);
    return status;
}

const struct verb verb_ls = {
    .name = "ls",
    .run = cmd_ls,
    .summary = "list the images of a store",
    .synopsis = {"[--store DIR] [--json | --names | --tree]",
                 "--remote URL [--json | --names] [OPTION...]"},
    .about = "Lists the images of a store. Pages are counted in ZERO to STORED. OWN DISK "
             "is what an image alone needs on disk, its map and its packs, which 'faultline rm' "
             "and 'faultline gc' would free; SHARED DISK is in packs that other images need as "
             "well. Images that can be restored while they are still packed come last, with how "
             "much of them is packed; --names has none of these.",
    .options = options,
};
