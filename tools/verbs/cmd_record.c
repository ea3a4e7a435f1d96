// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/ahead/recording_orders.h"
#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/cli/progress.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/recorder.h"
#include "tools/verbs/verbs.h"

enum { LOOK_EVERY_MS = 200, WHAT_BYTES = 96 };

struct record {
    struct recorder recorder;
    const char *store;
    uint64_t timeout_s; // 0: none
    bool replace;
    bool cancel;
    bool json;
};

// A plain number is of seconds.
static const char *take_window(void *place, const char *text)
{
    uint64_t ms = 0;
    int error = cli_parse_time(text, 1000, &ms);
    if (error == -EINVAL)
        return "is not a time such as 500ms, 30s, 30m or 1h";
    if (error || ms < 1 || ms > FL_ORDER_WINDOW_MOST_MS)
        return "is not from 1ms to 1h";
    *(uint64_t *)place = ms;
    return NULL;
}

static const struct verb_argument arguments[] = {{.name = "IMAGE", .hint = CLI_IMAGE},
                                                 {.name = NULL}};
static const struct cli_option options[] = {
    CLI_COUNT(struct record, recorder.runs, .name = "runs", .value = "N", .low = 1,
              .high = RECORDER_RUNS_MAX, .preset = "1", .help = "number of VMs to record, 1 to 64"),
    CLI_OTHER(struct record, recorder.window_ms, take_window, .name = "window", .value = "TIME",
              .preset = "30s",
              .help = "how long to record each VM after its restore, such as 500ms, 90s, 30m or 1h "
                      "(without a unit: seconds)"),
    CLI_COUNT(struct record, recorder.share, .name = "share", .value = "PERCENT", .low = 1,
              .high = 100, .preset = "50",
              .help = "the largest part of the image to record of each VM"),
    CLI_FLAG(struct record, replace, .name = "replace",
             .help = "replace the image's trace by the new recordings"),
    CLI_TIME_S(struct record, timeout_s, .name = "timeout", .value = "TIME", .low = 1,
               .high = DAY_S,
               .help = "stop waiting for VMs after this time, and keep what is complete",
               .otherwise = "wait for ever"),
    CLI_FLAG(struct record, cancel, .name = "cancel",
             .help = "cancel an order that was left behind, and record nothing"),
    CLI_JSON(struct record, json),
    CLI_CONTROL(struct record, recorder.control),
    CLI_STORE(struct record, store),
    CLI_END,
};

static double now_s(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

// Shows the progress. Returns false if the user has interrupted the recording.
static bool show_recording(const struct recorder *recorder, struct progress *progress,
                           const struct fl_progress *bar)
{
    static char what[WHAT_BYTES];
    snprintf(what, sizeof(what), "recording (%u VM%s now, %" PRIu64 " pages)",
             recorder->recorded_now, cli_s(recorder->recorded_now), recorder->pages_now);
    progress->what = what;
    return bar->fn(bar->arg, recorder->fetched, recorder->runs) == 0;
}

// Records until all VMs are recorded, the time is over, or the user interrupts it. Signals are
// caught before the order is given, so that no order is left behind. Returns EXIT_DONE, or
// EXIT_FAILED after a sentence if the server refuses the order or its rest.
static int record_all(struct record *record)
{
    struct progress progress;
    struct recorder *recorder = &record->recorder;
    struct fl_progress bar = progress_begin(&progress, "recording", false);
    double end = record->timeout_s > 0 ? now_s() + (double)record->timeout_s : 0;
    int result = recorder_begin(recorder);
    if (result == EXIT_DONE)
        result = recorder_look(recorder);
    while (result == EXIT_DONE && show_recording(recorder, &progress, &bar) &&
           recorder->fetched < recorder->runs && (end == 0 || now_s() < end)) {
        poll(NULL, 0, LOOK_EVERY_MS);
        result = recorder_look(recorder);
    }
    progress_end(&progress);
    recorder_end(recorder);
    return result;
}

static int print_recorded(const struct record *record, const struct fl_trace_info *trace)
{
    const struct recorder *recorder = &record->recorder;
    uint64_t pages = 0;
    char size[32];
    for (unsigned i = 0; i < recorder->fetched; i++)
        pages += recorder->recording[i].count;
    if (record->json)
        return store_print_json(
            "record",
            json_pack("{s:s, s:i, s:I, s:I, s:I}", "image", recorder->image, "recordings",
                      (int)recorder->fetched, "recorded_pages", (json_int_t)pages, "trace_pages",
                      (json_int_t)trace->pages, "trace_runs", (json_int_t)trace->runs));
    printf("%s: recorded %u VM%s; its trace has %" PRIu64 " pages (%s) of %u recording%s\n",
           recorder->image, recorder->fetched, cli_s(recorder->fetched), trace->pages,
           cli_format_bytes(trace->pages * FL_PAGE_SIZE, size, sizeof(size)), trace->runs,
           cli_s(trace->runs));
    return EXIT_DONE;
}

static int merge_recordings(const struct record *record, struct fl_store *store)
{
    struct fl_error error;
    struct fl_image_detail detail;
    const struct recorder *recorder = &record->recorder;
    if (fl_store_trace_merge(store, recorder->image, recorder->recording, recorder->fetched,
                             record->replace, &error) != 0 ||
        fl_store_inspect(store, recorder->image, &detail, &error) != 0)
        return cli_fail("record", "%s", error.text);
    return print_recorded(record, &detail.trace);
}

static int run_record(struct record *record)
{
    struct recorder *recorder = &record->recorder;
    struct fl_store *store = store_open_or_say("record", record->store, false);
    if (!store)
        return EXIT_FAILED;
    int result = record_all(record);
    if (recorder->fetched > 0) {
        int merged = merge_recordings(record, store);
        result = result == EXIT_DONE ? merged : result;
    }
    if (result == EXIT_DONE && recorder->fetched < recorder->runs)
        result = recorder->fetched > 0
                     ? cli_fail("record", "only %u of %u VMs were recorded", recorder->fetched,
                                recorder->runs)
                     : cli_fail("record", "no VM of image %s was recorded", recorder->image);
    recorder_free(recorder);
    fl_store_close(store);
    return result;
}

static int cancel_order(const struct record *record)
{
    json_t *answer = NULL;
    json_t *body = json_pack("{s:s}", "image", record->recorder.image);
    int result = control_ask_by("record", record->recorder.control, "DELETE", "/v1/recordings",
                                body, &answer);
    json_decref(body);
    json_decref(answer);
    return result;
}

static int cmd_record(int argc, char **argv)
{
    static struct record record; // large
    struct recorder *recorder = &record.recorder;
    *recorder = (struct recorder){.verb = "record"};
    int status = cli_parse(&verb_record, &record, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (argc - optind != 1)
        return cli_usage("record", "it needs the name of an image");
    recorder->image = argv[optind];
    if (!fl_name_valid(recorder->image))
        return cli_usage("record", "'%s' cannot name an image", recorder->image);
    return record.cancel ? cancel_order(&record) : run_record(&record);
}

const struct verb verb_record = {
    .name = "record",
    .run = cmd_record,
    .summary = "record which pages the next VMs of an image touch, for later VMs",
    .synopsis = {"[OPTION...] IMAGE"},
    .about = "Has a running server record which pages the next VMs of an image touch "
             "first, and in which order, and merges the recordings into the image's "
             "trace. VMs that are restored later get these pages ahead of their "
             "touches. A VM that is recorded gets no page ahead. Ctrl-C ends the "
             "recording and keeps what is complete.",
    .status = "0 if all VMs were recorded, 1 if not.",
    .arguments = arguments,
    .options = options,
};
