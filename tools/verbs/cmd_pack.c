// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/unix_socket.h"
#include "tools/cli/about_options.h"
#include "tools/cli/cli.h"
#include "tools/cli/codec_options.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/cli/progress.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/optimize_report.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *store;
    const char *trace; // the image whose trace is taken over; NULL: none
    bool json;
    struct about_with with;
    struct about_labels labels;
    struct fl_pack_options options;
};

static const struct verb_argument arguments[] = {{.name = "MEMFILE", .hint = CLI_FILE},
                                                 {.name = NULL}};
static const struct cli_option options[] = {
    CLI_STORE(struct arguments, store),
    CLI_TEXT(struct arguments, options.name, .name = "name", .value = "IMAGE",
             .help = "the image's name: 1 to 128 of A-Z a-z 0-9 . _ -", .hint = CLI_IMAGE),
    CLI_FLAG(struct arguments, options.replace, .name = "replace",
             .help = "replace an image of this name (otherwise that is an error)"),
    CLI_TEXT(struct arguments, trace, .name = "trace", .value = "OTHER", .hint = CLI_IMAGE,
             .help =
                 "give the new image the trace of this image, and lay it out by that (see optimize "
                 "--help). OTHER is, for example, an earlier snapshot of the same guest"),
    CLI_OTHER(struct arguments, with, take_with, .name = "with", .value = "NAME=FILE",
              .hint = CLI_FILE, .otherwise = "memory alone",
              .help = "a file that is kept with the image, as the VMM's state; may be given "
                      "several times (see unpack --help)"),
    CLI_LABEL(struct arguments, labels),
    CLI_CODEC(struct arguments, options.compression, .otherwise = "lz4",
              .help = "what compresses the pages that the store does not have yet: lz4 is read "
                      "fastest, zstd takes less space"),
    CLI_LEVEL(struct arguments, options.compression, .otherwise = "1 for lz4, 3 for zstd",
              .help =
                  "lz4 1 to 12, from 3 on smaller, slow to write and as fast to read; zstd 1 to "
                  "19"),
    CLI_FLAG(struct arguments, options.trust_store, .name = "trust-store",
             .help = "share pages without reading them first, except those in frames that are "
                     "known to be damaged. Faster, but unknown damage spreads"),
    CLI_THREADS(struct arguments, options.threads),
    CLI_JSON(struct arguments, json),
    CLI_END,
};

static int parse_pack(int argc, char **argv, struct arguments *args)
{
    int status = cli_parse(&verb_pack, args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (!args->options.name)
        return cli_usage("pack", "--name is missing");
    if (!fl_name_valid(args->options.name))
        return cli_usage("pack",
                         "--name: '%s' cannot name an image: 1 to %u of A-Z a-z 0-9 . _ - and not "
                         "starting with '.' or '-'",
                         args->options.name, FL_NAME_MAX);
    if (args->trace && !fl_name_valid(args->trace))
        return cli_usage("pack", "--trace: '%s' cannot name an image", args->trace);
    if (argc - optind != 1)
        return cli_usage("pack", "exactly one memory file is needed");
    status = codec_check("pack", args->options.compression, FL_CODEC_LZ4);
    if (status != EXIT_DONE)
        return status;
    args->options.path = argv[optind];
    args->options.with = args->with.files;
    args->options.with_count = args->with.count;
    args->options.labels = args->labels.labels;
    args->options.labels_count = args->labels.count;
    return EXIT_DONE;
}

static json_t *counts_json(const struct fl_pack_result *r)
{
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "input_bytes",
                     (json_int_t)r->input_bytes, "data_bytes", (json_int_t)r->data_bytes, "pages",
                     (json_int_t)r->pages, "zero_pages", (json_int_t)r->zero_pages,
                     "duplicate_pages", (json_int_t)r->duplicate_pages, "shared_pages",
                     (json_int_t)r->shared_pages, "declined_pages", (json_int_t)r->declined_pages,
                     "stored_pages", (json_int_t)r->stored_pages, "stored_bytes",
                     (json_int_t)r->stored_bytes, "image_bytes", (json_int_t)r->image_bytes);
}

static json_t *times_json(const struct fl_pack_result *r)
{
    return json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:I,s:b,s:b,s:b,s:I,s:I,s:I}", "seconds", r->seconds,
                     "hash_seconds", r->hash_seconds, "check_seconds", r->check_seconds,
                     "compress_seconds", r->compress_seconds, "write_seconds", r->write_seconds,
                     "index_seconds", r->index_seconds, "threads", (json_int_t)r->threads,
                     "index_damaged", r->index_damaged, "index_rebuilt", r->index_rebuilt,
                     "index_not_updated", r->index_not_updated, "bad_frames",
                     (json_int_t)r->bad_frames, "healed_images", (json_int_t)r->healed_images,
                     "damaged_images", (json_int_t)r->damaged_images);
}

// layout is NULL if the image was not laid out.
static int print_pack_json(const char *name, const struct fl_pack_result *result,
                           const struct fl_optimize_result *layout)
{
    json_t *object = json_pack("{s:s}", "name", name);
    json_t *counts = counts_json(result);
    json_t *times = times_json(result);
    json_t *laid_out = layout ? optimize_json(name, layout) : json_null();
    bool ok = object && counts && times && laid_out && json_object_update(object, counts) == 0 &&
              json_object_update(object, times) == 0 &&
              json_object_set(object, "layout", laid_out) == 0;
    json_decref(counts);
    json_decref(times);
    json_decref(laid_out);
    if (!ok) {
        json_decref(object);
        object = NULL;
    }
    return store_print_json("pack", object);
}

static void print_pack_text(const char *name, const struct fl_pack_result *r)
{
    char input[32];
    char stored[32];
    char image[32];
    printf("%s: %s in %.2f s (%.2f GB/s)\n", name,
           cli_format_bytes(r->input_bytes, input, sizeof(input)), r->seconds,
           r->seconds > 0 ? (double)r->input_bytes / r->seconds / 1e9 : 0.0);
    printf("  pages      %12" PRIu64 "\n", r->pages);
    printf("  zero       %12" PRIu64 "\n", r->zero_pages);
    printf("  duplicate  %12" PRIu64 "  of pages in this image\n", r->duplicate_pages);
    printf("  shared     %12" PRIu64 "  with images packed before\n", r->shared_pages);
    printf("  stored     %12" PRIu64 "  in %s, image map %s\n", r->stored_pages,
           cli_format_bytes(r->stored_bytes, stored, sizeof(stored)),
           cli_format_bytes(r->image_bytes, image, sizeof(image)));
    if (r->declined_pages > 0)
        printf("  of these   %12" PRIu64 "  known but stored again against fragmentation\n",
               r->declined_pages);
}

static void warn_of_damage(const struct fl_pack_result *result)
{
    if (result->bad_frames > 0)
        cli_warn("pack",
                 "the image is complete, but the store has %" PRIu64
                 " damaged frame%s with pages of it; these pages were stored again, not shared",
                 result->bad_frames, cli_s(result->bad_frames));
    if (result->bad_not_noted)
        cli_warn("pack", "the store's list of bad frames could not be written; run faultline "
                         "verify, which writes it");
    if (result->healed_images > 0)
        cli_warn("pack",
                 "%" PRIu64 " earlier image%s got pages of it in the place of "
                 "damaged ones",
                 result->healed_images, cli_s(result->healed_images));
    if (result->damaged_images > 0)
        cli_warn("pack",
                 "%" PRIu64 " other image%s damaged; faultline verify names them, "
                 "and faultline repair heals them",
                 result->damaged_images, result->damaged_images == 1 ? " is" : "s are");
}

static void warn_after_pack(const struct fl_pack_result *result, const char *dir)
{
    warn_of_damage(result);
    store_say_index("pack", dir, "the image is complete", result->index_rebuilt,
                    result->index_damaged, result->index_error);
}

// Removes the pages of the trace that are beyond the end of a smaller image.
static void cut_trace(struct fl_recording *trace, struct fl_trace_entry *entries, uint64_t pages)
{
    uint64_t kept = 0;
    for (uint64_t i = 0; i < trace->count; i++) {
        if (entries[i].page < pages)
            entries[kept++] = entries[i];
    }
    trace->count = kept;
}

// Lays out the image, which is complete even if this fails.
static int lay_out(struct fl_store *store, const struct arguments *args,
                   const struct fl_recording *trace, struct fl_optimize_result *ret_layout)
{
    struct progress progress;
    struct fl_error error;
    struct fl_optimize_options how = {.name = args->options.name};
    int r = fl_store_trace_merge(store, how.name, trace, 1, true, &error);
    if (r == 0) {
        how.progress = progress_begin(&progress, "laying out", true);
        r = fl_store_optimize(store, &how, ret_layout, &error);
        progress_end(&progress);
    }
    return r < 0 ? cli_fail("pack", "the image is complete, but not laid out: %s", error.text)
                 : EXIT_DONE;
}

// Warns if the image's socket in the default directory has a longer path than a socket can have.
static void warn_of_name(const char *name)
{
    size_t length = strlen(DEFAULT_SOCKETS "/" FL_SOCKET_SUFFIX) + strlen(name);
    if (length > FL_SOCKET_PATH_MAX)
        cli_warn("pack",
                 "the path of the image's socket, %s/%s" FL_SOCKET_SUFFIX ", has %zu bytes, but a "
                 "VMM can connect to a path of at most %d: choose a shorter name, or serve "
                 "--sockets with a shorter directory",
                 DEFAULT_SOCKETS, name, length, FL_SOCKET_PATH_MAX);
}

// Reads the trace first, because it may be that of the image which is replaced.
static int pack_file(struct fl_store *store, struct arguments *args)
{
    struct progress progress;
    struct fl_pack_result result;
    struct fl_optimize_result layout;
    struct fl_recording trace = {.entries = NULL};
    struct fl_error error;
    if (args->trace && fl_store_trace_read(store, args->trace, &trace, &error) < 0)
        return cli_fail("pack", "%s", error.text);
    args->options.progress = progress_begin(&progress, "packing", true);
    int r = fl_store_pack(store, &args->options, &result, &error);
    progress_end(&progress);
    int status = r < 0 ? cli_fail("pack", "%s", error.text) : EXIT_DONE;
    if (r == 0) {
        warn_after_pack(&result, args->store);
        warn_of_name(args->options.name);
    }
    if (r == 0 && args->trace) {
        cut_trace(&trace, (struct fl_trace_entry *)trace.entries, result.pages);
        trace.content_id = result.content_id; // so that no image that replaces this one gets it
        status = lay_out(store, args, &trace, &layout);
    }
    fl_recording_free(&trace);
    if (status != EXIT_DONE)
        return status;
    if (args->json)
        return print_pack_json(args->options.name, &result, args->trace ? &layout : NULL);
    print_pack_text(args->options.name, &result);
    if (args->trace)
        optimize_print("pack", args->store, args->options.name, &layout);
    return EXIT_DONE;
}

static int cmd_pack(int argc, char **argv)
{
    struct arguments args = {.store = NULL};
    struct fl_error error;
    int status = parse_pack(argc, argv, &args);
    if (status != EXIT_DONE)
        return status;
    if (fl_pack_check_input(args.options.path, &error) < 0) // before a store is made in vain
        return cli_fail("pack", "%s", error.text);
    struct fl_store *store = store_open_or_say("pack", args.store, true);
    if (!store)
        return EXIT_FAILED;
    status = pack_file(store, &args);
    fl_store_close(store);
    return status;
}

const struct verb verb_pack = {
    .name = "pack",
    .run = cmd_pack,
    .summary = "add a guest memory file to a store as an image",
    .synopsis = {"[--store DIR] --name IMAGE [OPTION...] MEMFILE"},
    .about = "Adds a guest memory file to the store as an image. Holes and zero "
             "pages take no space, and pages that the store has already are shared. "
             "Creates the store if there is none.",
    .arguments = arguments,
    .options = options,
};
