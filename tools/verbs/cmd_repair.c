// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/progress.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *store;
    bool json;
    struct fl_repair_options options;
};

static const struct cli_option options[] = {
    CLI_STORE(struct arguments, store),
    CLI_TEXT(
        struct arguments, options.memory_path, .name = "from", .value = "MEMFILE", .hint = CLI_FILE,
        .help =
            "also look in this memory file: the one that was packed, or one of a similar guest"),
    CLI_TEXT(struct arguments, options.store_dir, .name = "from-store", .value = "DIR",
             .hint = CLI_DIRECTORY,
             .help = "also look in this store: a backup, or another host's copy"),
    CLI_FLAG(struct arguments, options.dry_run, .name = "dry-run",
             .help = "print what would be done, and change nothing"),
    CLI_JSON(struct arguments, json),
    CLI_END,
};

static int parse_repair(int argc, char **argv, struct arguments *args)
{
    int status = cli_parse(&verb_repair, args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    return optind == argc ? EXIT_DONE
                          : cli_usage("repair", "it takes no argument '%s'", argv[optind]);
}

struct told {
    const struct arguments *args;
    struct progress *progress;
    json_t *images; // an array of the images; NULL: print them as text
};

static void tell_image_json(json_t *images, const struct fl_repair_image *image)
{
    json_t *object = json_pack("{s:s,s:I,s:I}", "name", image->name, "bad_pages",
                               (json_int_t)image->bad_pages, "left", (json_int_t)image->left);
    if (object && image->problem)
        json_object_set_new(object, "problem", json_string(image->problem));
    json_array_append_new(images, object);
}

static void tell_image(void *arg, const struct fl_repair_image *image)
{
    struct told *told = arg;
    uint64_t healed = image->bad_pages - image->left;
    if (told->images) {
        tell_image_json(told->images, image);
        return;
    }
    progress_end(told->progress);
    printf("image %s: ", image->name);
    if (image->problem && image->bad_pages == 0)
        printf("it cannot be opened: %s\n", image->problem);
    else if (image->problem)
        printf("it cannot be written: %s; %" PRIu64 " damaged page%s left\n", image->problem,
               image->left, cli_s(image->left));
    else if (told->args->options.dry_run)
        printf("%" PRIu64 " of %" PRIu64 " damaged page%s can be healed\n", healed,
               image->bad_pages, cli_s(image->bad_pages));
    else
        printf("%" PRIu64 " of %" PRIu64 " damaged page%s healed\n", healed, image->bad_pages,
               cli_s(image->bad_pages));
}

static json_t *result_json(const struct fl_repair_result *r, bool dry_run, json_t *images)
{
    return json_pack("{s:b,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:b,s:b,s:O}", "ok", r->images_left == 0,
                     "dry_run", dry_run, "bad_frames", (json_int_t)r->bad_frames, "wanted_pages",
                     (json_int_t)r->wanted_pages, "found_pages", (json_int_t)r->found_pages,
                     "images_damaged", (json_int_t)r->images, "images_left",
                     (json_int_t)r->images_left, "stored_bytes", (json_int_t)r->stored_bytes,
                     "seconds", r->seconds, "list_not_written", r->list_not_written,
                     "index_not_updated", r->index_not_updated, "images", images);
}

static void print_repair_text(const struct fl_repair_result *r, bool dry_run)
{
    char stored[32];
    if (r->bad_frames == 0) {
        puts("no damaged frame is known; faultline verify looks for them");
        return;
    }
    printf("%s: %" PRIu64 " damaged frame%s known; of %" PRIu64 " page%s that images need of them, "
           "%" PRIu64 " %s found; images left damaged: %" PRIu64 " of %" PRIu64,
           r->images_left == 0 ? "ok" : "BAD", r->bad_frames, cli_s(r->bad_frames), r->wanted_pages,
           cli_s(r->wanted_pages), r->found_pages, r->found_pages == 1 ? "was" : "were",
           r->images_left, r->images);
    if (!dry_run && r->stored_bytes > 0)
        printf("; new pack of %s", cli_format_bytes(r->stored_bytes, stored, sizeof(stored)));
    // The list has what verify has met: damage that is newer is not on it, and "ok" does not speak
    // of that.
    puts(r->images == 0 ? "; no image needs them: faultline verify looks for other damage" : "");
}

static void warn_after_repair(const struct fl_repair_result *result, const char *dir)
{
    if (result->list_not_written)
        cli_warn("repair", "the store's list of bad frames could not be written; run "
                           "faultline verify, which writes it");
    store_say_index("repair", dir, "images are healed", result->index_rebuilt, false,
                    result->index_error);
}

static int repair_store(struct fl_store *store, struct arguments *args, struct told *told)
{
    struct fl_repair_result result;
    struct fl_error error;
    struct progress progress;
    told->progress = &progress;
    args->options.image = tell_image;
    args->options.image_arg = told;
    args->options.progress = progress_begin(&progress, "repairing", false);
    int r = fl_store_repair(store, &args->options, &result, &error);
    progress_end(&progress);
    if (r < 0)
        return cli_fail("repair", "%s", error.text);
    warn_after_repair(&result, args->store);
    if (!args->json)
        print_repair_text(&result, args->options.dry_run);
    else if (store_print_json(
                 "repair", result_json(&result, args->options.dry_run, told->images)) != EXIT_DONE)
        return EXIT_FAILED;
    return result.images_left == 0 ? EXIT_DONE : EXIT_FAILED;
}

static int cmd_repair(int argc, char **argv)
{
    struct arguments args = {.store = NULL};
    struct told told = {.args = &args};
    int status = parse_repair(argc, argv, &args);
    if (status != EXIT_DONE)
        return status;
    struct fl_store *store = store_open_or_say("repair", args.store, false);
    if (!store)
        return EXIT_FAILED;
    if (args.json)
        told.images = json_array();
    status = repair_store(store, &args, &told);
    json_decref(told.images);
    fl_store_close(store);
    return status;
}

const struct verb verb_repair = {
    .name = "repair",
    .run = cmd_repair,
    .summary = "heal images that have pages in damaged frames",
    .synopsis = {"[--store DIR] [OPTION...]"},
    .about = "Heals the images that have pages in damaged frames. The store "
             "remembers which frames verify and pack have found damaged, so run "
             "'faultline verify' first. Looks for the pages in the store's other "
             "packs, in what is left of the damaged frames, and in the places named "
             "by --from and --from-store. A page is taken if its SHA-256 is right. "
             "An image is replaced at once or not at all, and keeps its content, "
             "name and trace. Running VMs keep what they have.",
    .status = "0 if no image is left with damage that the store knows of, 1 if one is. Damage that "
              "neither verify nor pack has met yet is not known: only 'faultline verify' says that "
              "a store is whole.",
    .options = options,
};
