// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/output.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/trace_report.h"
#include "tools/verbs/verbs.h"

struct arguments {
    bool shows; // else removes
    const char *store;
    bool json;
    const char *svg;
    const char *image;
};

static const struct verb_argument arguments[] = {
    {.name = "show|rm", .choices = "show|rm"},
    {.name = "IMAGE", .hint = CLI_IMAGE},
    {.name = NULL},
};
static const struct cli_option options[] = {
    CLI_STORE(struct arguments, store),
    CLI_FLAG(struct arguments, json, .name = "json",
             .help = "print the trace as JSON, with all pages in the order of touch"),
    CLI_TEXT(struct arguments, svg, .name = "svg", .value = "FILE", .hint = CLI_FILE,
             .help = "also write a picture: which parts of memory were touched when"),
    CLI_END,
};

// An image and its trace, each a reference, or NULL.
struct shown {
    struct fl_image *image;
    struct fl_trace *trace;
};

static int open_trace(struct fl_reader *reader, const char *name, struct shown *shown)
{
    int r = fl_image_open(reader, name, &shown->image);
    if (r < 0)
        return cli_fail("trace", "image '%s': %s", name, fl_image_strerror(r));
    r = fl_trace_open(reader, shown->image, &shown->trace);
    if (r == -ENOENT)
        return cli_fail("trace", "image '%s' has no trace", name);
    if (r == -ESTALE)
        return cli_fail("trace",
                        "the trace of image '%s' was recorded from other content; the "
                        "image has been replaced since",
                        name);
    if (r == -EBADMSG)
        return cli_fail("trace",
                        "the trace of image '%s' is damaged (a checksum or a bound is "
                        "wrong)",
                        name);
    return r < 0 ? cli_fail_errno("trace", r, "the trace of image '%s'", name) : EXIT_DONE;
}

static int open_shown(const struct arguments *args, struct shown *shown)
{
    const char *dir = args->store;
    struct fl_reader *reader;
    int r = fl_reader_open(dir, &reader);
    if (r == -ENOENT)
        return cli_fail("trace", FL_NO_STORE, dir);
    if (r < 0)
        return cli_fail_errno("trace", r, "cannot open the store %s", dir);
    int status = open_trace(reader, args->image, shown);
    fl_reader_close(reader);
    return status;
}

enum field { PAGE, MS, SEEN };

static json_t *trace_column(const struct fl_recording *order, enum field field)
{
    json_t *array = json_array();
    for (uint64_t i = 0; array && i < order->count; i++) {
        const struct fl_trace_entry *entry = &order->entries[i];
        uint64_t number = field == PAGE ? entry->page : field == MS ? entry->ms : entry->seen;
        json_array_append_new(array, json_integer((json_int_t)number));
    }
    return array;
}

static double stretch_mean(const struct trace_report *report)
{
    return (double)report->pages / (double)report->stretches;
}

static json_t *figures_json(const char *name, const struct trace_report *report)
{
    return json_pack(
        "{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:{s:I,s:f,s:I}}", "name", name, "image_pages",
        (json_int_t)report->image_pages, "pages", (json_int_t)report->pages, "zero_pages",
        (json_int_t)report->zero_pages, "runs", (json_int_t)report->runs, "seen_in_all",
        (json_int_t)report->seen_in_all, "seen_in_most", (json_int_t)report->seen_in_most,
        "first_ms", (json_int_t)report->first_ms, "half_ms", (json_int_t)report->half_ms, "last_ms",
        (json_int_t)report->last_ms, "stretches", "count", (json_int_t)report->stretches, "mean",
        stretch_mean(report), "max", (json_int_t)report->longest);
}

// Prints the pages in the order of touch, which fl_store_trace_read() returns. The order of
// fl_trace_entries() is that of replay.
static int print_trace_json(const struct arguments *args, const struct trace_report *report)
{
    struct fl_recording order = {.count = 0};
    struct fl_error error;
    struct fl_store *store = store_open_or_say("trace", args->store, false);
    if (!store)
        return EXIT_FAILED;
    int r = fl_store_trace_read(store, args->image, &order, &error);
    fl_store_close(store);
    if (r < 0)
        return cli_fail("trace", "%s", error.text);
    json_t *object = figures_json(args->image, report);
    json_t *columns = json_pack("{s:o,s:o,s:o}", "order", trace_column(&order, PAGE), "ms",
                                trace_column(&order, MS), "seen", trace_column(&order, SEEN));
    fl_recording_free(&order);
    if (!object || !columns || json_object_update(object, columns) < 0) {
        json_decref(object);
        object = NULL;
    }
    json_decref(columns);
    return store_print_json("trace", object);
}

static void print_trace_text(const char *name, const struct trace_report *report)
{
    char bytes[32];
    printf("trace of       %s, merged from %" PRIu32 " recording%s\n", name, report->runs,
           cli_s(report->runs));
    printf("pages          %12" PRIu64 "  %s, %.1f %% of the image\n", report->pages,
           cli_format_bytes(report->pages * FL_PAGE_SIZE, bytes, sizeof(bytes)),
           100.0 * (double)report->pages / (double)report->image_pages);
    printf("  zero         %12" PRIu64 "\n", report->zero_pages);
    printf("  in all       %12" PRIu64 "  are in every recording, %" PRIu64
           " in more than half of them\n",
           report->seen_in_all, report->seen_in_most);
    printf("touched        %12" PRIu32 "  to %" PRIu32 " ms after attach, half of them by %" PRIu32
           " ms\n",
           report->first_ms, report->last_ms, report->half_ms);
    printf("stretches      %12" PRIu64 "  of consecutive pages, %.1f pages on average, %" PRIu64
           " at most\n",
           report->stretches, stretch_mean(report), report->longest);
}

// Writes through a copy of the descriptor: fclose() closes the copy, and the file is published by
// the other one afterwards.
static int draw_trace(int fd, const struct arguments *args, const struct trace_report *report,
                      const struct fl_trace *trace)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    FILE *out = copy < 0 ? NULL : fdopen(copy, "w");
    if (!out) {
        int error = errno;
        if (copy >= 0)
            close(copy);
        return -error;
    }
    int r = trace_svg_write(out, args->image, report, trace);
    bool failed = ferror(out) != 0;
    if ((fclose(out) != 0 || failed) && r == 0)
        r = errno ? -errno : -EIO;
    return r;
}

static int write_svg(const struct arguments *args, const struct trace_report *report,
                     const struct fl_trace *trace)
{
    struct fl_output output;
    int r = fl_output_open(args->svg, true, &output);
    if (r == 0)
        r = draw_trace(output.temp.fd, args, report, trace);
    if (r == 0)
        r = fl_output_publish(&output);
    fl_output_close(&output);
    return r < 0 ? cli_fail("trace", "cannot write %s: %s", args->svg, fl_output_strerror(r))
                 : EXIT_DONE;
}

static int print_shown(const struct arguments *args, const struct shown *shown)
{
    struct trace_report report;
    int r = trace_report_make(shown->image, shown->trace, &report);
    if (r < 0)
        return cli_fail_errno("trace", r, "the trace of image '%s'", args->image);
    int status = args->svg ? write_svg(args, &report, shown->trace) : EXIT_DONE;
    if (status != EXIT_DONE)
        return status;
    if (args->json)
        return print_trace_json(args, &report);
    print_trace_text(args->image, &report);
    return EXIT_DONE;
}

static int show_trace(const struct arguments *args)
{
    struct shown shown = {.image = NULL};
    int status = open_shown(args, &shown);
    if (status == EXIT_DONE)
        status = print_shown(args, &shown);
    fl_trace_unref(shown.trace);
    fl_image_unref(shown.image);
    return status;
}

static int remove_trace(const struct arguments *args)
{
    struct fl_error error;
    struct fl_store *store = store_open_or_say("trace", args->store, false);
    if (!store)
        return EXIT_FAILED;
    int r = fl_store_trace_rm(store, args->image, &error);
    fl_store_close(store);
    if (r < 0)
        return cli_fail("trace", "%s", error.text);
    return args->json ? store_print_json("trace", json_pack("{s:s}", "removed", args->image))
                      : EXIT_DONE;
}

static int parse_trace(int argc, char **argv, struct arguments *args)
{
    int status = cli_parse(&verb_trace, args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    const char *what = optind < argc ? argv[optind] : "";
    args->shows = strcmp(what, "show") == 0;
    if (!args->shows && strcmp(what, "rm") != 0)
        return cli_usage(
            "trace",
            what[0] ? "there is no 'trace %s', only show and rm" : "show or rm is needed%s", what);
    if (!args->shows && args->svg)
        return cli_usage("trace", "rm takes no --svg");
    if (argc - optind != 2)
        return cli_usage("trace", "exactly one image is needed");
    args->image = argv[optind + 1];
    return EXIT_DONE;
}

static int cmd_trace(int argc, char **argv)
{
    struct arguments args = {.store = NULL};
    int status = parse_trace(argc, argv, &args);
    if (status != EXIT_DONE)
        return status;
    return args.shows ? show_trace(&args) : remove_trace(&args);
}

const struct verb verb_trace = {
    .name = "trace",
    .run = cmd_trace,
    .summary = "show or remove an image's trace: the order in which its pages are touched",
    .synopsis = {"show [--store DIR] [--json] [--svg FILE] IMAGE",
                 "rm [--store DIR] [--json] IMAGE"},
    .about = "Shows or removes the trace of an image: the recorded order in which "
             "VMs first touch its pages after a restore. A server installs pages in "
             "this order, ahead of the touches.",
    .arguments = arguments,
    .options = options,
};
