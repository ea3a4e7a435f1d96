// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/about_options.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *store;
    bool json, codecs;
};

static const struct verb_argument arguments[] = {{.name = "IMAGE", .hint = CLI_IMAGE},
                                                 {.name = NULL}};
static const struct cli_option options[] = {
    CLI_STORE(struct arguments, store),
    CLI_FLAG(struct arguments, codecs, .name = "codecs",
             .help = "estimate what it would take with each codec, from up to 32 of its frames"),
    CLI_JSON(struct arguments, json),
    CLI_END,
};

static int parse_inspect(int argc, char **argv, struct arguments *args)
{
    int status = cli_parse(&verb_inspect, args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    return argc - optind == 1 ? EXIT_DONE : cli_usage("inspect", "exactly one image is needed");
}

static double mean_frames(const struct fl_image_detail *detail)
{
    return detail->ranges > 0 ? (double)detail->range_frames / (double)detail->ranges : 0.0;
}

static const char *trace_state(enum fl_trace_state state)
{
    static const char *const names[] = {
        [FL_TRACE_NONE] = "none",
        [FL_TRACE_GOOD] = "good",
        [FL_TRACE_STALE] = "stale",
        [FL_TRACE_BAD] = "bad",
    };
    return names[state];
}

// Looks at all images: what is shared depends on what the others need.
static int find_space(struct fl_store *store, const char *name, struct fl_image_space *ret_space,
                      struct fl_error *ret_error)
{
    char **names;
    size_t count;
    int r = fl_store_image_names(store, &names, &count, ret_error);
    if (r < 0)
        return r;
    *ret_space = (struct fl_image_space){0};
    struct fl_image_space *all = calloc(count + 1, sizeof(*all));
    r = all ? fl_store_space(store, names, count, all, ret_error)
            : fl_fail(ret_error, -ENOMEM, "cannot look at the packs of the store");
    for (size_t i = 0; r == 0 && i < count; i++) {
        if (strcmp(names[i], name) == 0)
            *ret_space = all[i];
    }
    free(all);
    fl_store_free_names(names, count);
    return r;
}

struct codecs {
    bool asked;
    struct fl_codec_estimate estimates[FL_ESTIMATES];
    uint64_t frames; // that they rest on
};

static json_t *codecs_json(const struct codecs *codecs)
{
    if (!codecs->asked)
        return json_null();
    json_t *list = json_array();
    for (unsigned i = 0; i < FL_ESTIMATES; i++) {
        const struct fl_codec_estimate *estimate = &codecs->estimates[i];
        json_array_append_new(list, json_pack("{s:s,s:i,s:I}", "codec",
                                              fl_codec_name(estimate->compression.codec), "level",
                                              (int)estimate->compression.level, "stored_bytes",
                                              (json_int_t)estimate->stored_bytes));
    }
    return json_pack("{s:I,s:o}", "sampled_frames", (json_int_t)codecs->frames, "estimates", list);
}

static int print_inspect_json(const struct fl_image_detail *detail,
                              const struct fl_image_space *space,
                              const struct fl_image_about *about, const struct codecs *codecs)
{
    json_t *object = store_image_json(&detail->info);
    json_t *more = json_pack(
        "{s:o,s:I,s:I,s:I,s:I,s:I,s:{s:I,s:f,s:I},s:{s:s,s:I,s:I}}", "codecs", codecs_json(codecs),
        "own_bytes", (json_int_t)space->own_bytes, "shared_bytes", (json_int_t)space->shared_bytes,
        "frames", (json_int_t)detail->frames, "frame_pages", (json_int_t)detail->frame_pages,
        "stored_bytes", (json_int_t)detail->stored_bytes, "fragmentation", "ranges",
        (json_int_t)detail->ranges, "frames_mean", mean_frames(detail), "frames_max",
        (json_int_t)detail->range_frames_max, "trace", "state", trace_state(detail->trace.state),
        "pages", (json_int_t)detail->trace.pages, "runs", (json_int_t)detail->trace.runs);
    bool ok =
        object && more && json_object_update(object, more) == 0 && about_add_json(object, about);
    json_decref(more);
    if (!ok) {
        json_decref(object);
        object = NULL;
    }
    return store_print_json("inspect", object);
}

static void print_inspect_trace(const struct fl_trace_info *trace)
{
    if (trace->state == FL_TRACE_GOOD)
        printf("trace          %12" PRIu64 "  pages, merged from %" PRIu32 " recording%s\n",
               trace->pages, trace->runs, cli_s(trace->runs));
    else if (trace->state == FL_TRACE_STALE)
        puts("trace          of other content: the image was replaced after it was recorded");
    else if (trace->state == FL_TRACE_BAD)
        puts("trace          damaged or of an unknown version: faultline verify tells more");
    else
        puts("trace          none");
}

static void print_codecs(const struct codecs *codecs, uint64_t now)
{
    char bytes[32];
    if (!codecs->asked)
        return;
    printf("codecs         by %" PRIu64 " of its frames, all of them would take\n", codecs->frames);
    for (unsigned i = 0; i < FL_ESTIMATES; i++) {
        const struct fl_codec_estimate *estimate = &codecs->estimates[i];
        double change =
            now > 0 ? 100.0 * ((double)estimate->stored_bytes - (double)now) / (double)now : 0;
        printf("  %-4s %-2u      %12s  %+.0f %%\n", fl_codec_name(estimate->compression.codec),
               estimate->compression.level,
               cli_format_bytes(estimate->stored_bytes, bytes, sizeof(bytes)), change);
    }
}

static void print_inspect_text(const struct fl_image_detail *detail,
                               const struct fl_image_space *space,
                               const struct fl_image_about *about)
{
    const struct fl_image_info *info = &detail->info;
    char text[65];
    printf("image          %s\n", info->name);
    store_format_time(info->created, text, sizeof(text));
    printf("created        %s\n", text);
    store_format_id(info->content_id, text);
    printf("content id     %s\n", text);
    about_print(about);
    printf("size           %s (%" PRIu64 " bytes)\n",
           cli_format_bytes(info->bytes, text, sizeof(text)), info->bytes);
    printf("pages          %12" PRIu64 "\n", info->pages);
    printf("  zero         %12" PRIu64 "\n", info->zero_pages);
    printf("  duplicate    %12" PRIu64 "\n", info->duplicate_pages);
    printf("  shared       %12" PRIu64 "\n", info->shared_pages);
    printf("  stored       %12" PRIu64 "  (%" PRIu64 " of them known, but declined)\n",
           info->stored_pages, info->declined_pages);
    printf("frames         %12" PRIu64 "  in %" PRIu64 " pack%s\n", detail->frames, info->packs,
           cli_s(info->packs));
    printf("stored bytes   %12s  compressed, of %" PRIu64 " pages\n",
           cli_format_bytes(detail->stored_bytes, text, sizeof(text)), detail->frame_pages);
    printf("own disk       %12s  its map, and packs that no other image needs\n",
           cli_format_bytes(space->own_bytes, text, sizeof(text)));
    printf("shared disk    %12s  packs that other images need, too\n",
           cli_format_bytes(space->shared_bytes, text, sizeof(text)));
    printf("fragmentation  %12.1f  frames in a range of 2 MiB on average, %" PRIu64
           " in the worst\n",
           mean_frames(detail), detail->range_frames_max);
    print_inspect_trace(&detail->trace);
}

static int cmd_inspect(int argc, char **argv)
{
    struct arguments args = {.store = NULL};
    struct fl_image_detail detail;
    struct fl_image_space space = {0};
    struct fl_image_about about = {.companions = NULL};
    struct codecs codecs = {.asked = false};
    struct fl_error error;
    int status = parse_inspect(argc, argv, &args);
    if (status != EXIT_DONE)
        return status;
    struct fl_store *store = store_open_or_say("inspect", args.store, false);
    if (!store)
        return EXIT_FAILED;
    int r = fl_store_inspect(store, argv[optind], &detail, &error);
    if (r == 0)
        r = find_space(store, argv[optind], &space, &error);
    if (r == 0)
        r = fl_store_image_about(store, argv[optind], &about, &error);
    codecs.asked = args.codecs;
    if (r == 0 && args.codecs)
        r = fl_store_inspect_codecs(store, argv[optind], codecs.estimates, &codecs.frames, &error);
    fl_store_close(store);
    if (r < 0) {
        fl_image_about_free(&about);
        return cli_fail("inspect", "%s", error.text);
    }
    if (args.json) {
        status = print_inspect_json(&detail, &space, &about, &codecs);
    } else {
        print_inspect_text(&detail, &space, &about);
        print_codecs(&codecs, detail.stored_bytes);
    }
    fl_image_about_free(&about);
    return status;
}

const struct verb verb_inspect = {
    .name = "inspect",
    .run = cmd_inspect,
    .summary = "show what an image is made of",
    .synopsis = {"[--store DIR] [OPTION...] IMAGE"},
    .about =
        "Shows how many pages of an image are zero, shared or stored, the state "
        "of its trace, and what it has besides memory: companions, labels and its parent. With "
        "--codecs it also compresses some of its frames in other ways.",
    .arguments = arguments,
    .options = options,
};
