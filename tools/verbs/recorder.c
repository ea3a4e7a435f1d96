// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/recorder.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"

enum { OK = 200, CREATED = 201, NOT_FOUND = 404, PATH_BYTES = FL_NAME_MAX + 96 };
static const char recordings[] = "/v1/recordings";

static int order_refused(const struct recorder *recorder, const json_t *answer)
{
    const char *reason = json_string_value(json_object_get(answer, "error"));
    if (reason)
        return cli_fail(recorder->verb, "the server at %s says: %s", recorder->control, reason);
    return cli_fail(recorder->verb, "the server at %s gives an answer that is not understood",
                    recorder->control);
}

static json_t *make_order(const struct recorder *recorder)
{
    return json_pack("{s:s, s:s, s:i, s:I, s:i}", "image", recorder->image, "id", recorder->id,
                     "runs", (int)(recorder->runs - recorder->fetched), "window_ms",
                     (json_int_t)recorder->window_ms, "share", (int)recorder->share);
}

int recorder_begin(struct recorder *recorder)
{
    uint8_t noise[16];
    json_t *answer = NULL;
    if (getrandom(noise, sizeof(noise), 0) != (ssize_t)sizeof(noise))
        return cli_fail_errno(recorder->verb, -errno, "cannot get a random number");
    for (unsigned i = 0; i < sizeof(noise); i++)
        snprintf(recorder->id + (size_t)2 * i, 3, "%02x", noise[i]);
    json_t *order = make_order(recorder);
    int result =
        control_ask_by(recorder->verb, recorder->control, "POST", recordings, order, &answer);
    json_decref(order);
    json_decref(answer);
    recorder->ordered = result == EXIT_DONE;
    return result;
}

// --- fetching ---

struct part {
    uint64_t total;
    uint64_t count;
    const json_t *pages;
    const json_t *ms;
};

static bool read_id(const char *hex, uint8_t ret_id[32])
{
    if (!hex || strlen(hex) != 64)
        return false;
    for (unsigned i = 0; i < 32; i++) {
        unsigned byte = 0;
        if (sscanf(hex + (size_t)2 * i, "%2x", &byte) != 1) // NOLINT(cert-err34-c)
            return false;
        ret_id[i] = (uint8_t)byte;
    }
    return true;
}

static bool read_part(json_t *answer, struct part *part, uint8_t ret_id[32])
{
    json_int_t total = -1;
    const char *content_id = NULL;
    json_t *pages = NULL;
    json_t *ms = NULL;
    if (json_unpack(answer, "{s:I, s:s, s:o, s:o}", "total", &total, "content_id", &content_id,
                    "pages", &pages, "ms", &ms) != 0 ||
        total < 1 || !json_is_array(pages) || json_array_size(pages) != json_array_size(ms))
        return false;
    *part = (struct part){(uint64_t)total, json_array_size(pages), pages, ms};
    return part->count > 0 && part->count <= part->total && read_id(content_id, ret_id);
}

static void take_part(const struct part *part, struct fl_trace_entry *to)
{
    for (uint64_t i = 0; i < part->count; i++)
        to[i] = (struct fl_trace_entry){
            .page = (uint64_t)json_integer_value(json_array_get(part->pages, i)),
            .ms = (uint32_t)json_integer_value(json_array_get(part->ms, i)),
            .seen = 1};
}

// Fetches pages from number `have` on. Returns the HTTP status; 0 if there is no answer, or one
// that is not understood.
static long fetch_part(const struct recorder *recorder, unsigned run, uint64_t have,
                       struct fl_trace_entry **entries, uint64_t *ret_count, uint64_t *ret_total,
                       uint8_t ret_id[32])
{
    char path[PATH_BYTES];
    long status = 0;
    json_t *answer = NULL;
    struct part part;
    snprintf(path, sizeof(path), "%s?image=%s&run=%u&from=%llu", recordings, recorder->image, run,
             (unsigned long long)have);
    control_try(recorder->control, NULL, path, NULL, &status, &answer);
    if (status == OK && !read_part(answer, &part, ret_id))
        status = 0;
    if (status == OK && have == 0)
        *entries = calloc(part.total, sizeof(**entries));
    if (status == OK && (!*entries || have + part.count > part.total))
        status = 0;
    if (status == OK) {
        take_part(&part, *entries + have);
        *ret_count = part.count;
        *ret_total = part.total;
    }
    json_decref(answer);
    return status;
}

// Fetches one recording. Returns false if that is not possible now.
static bool fetch_recording(struct recorder *recorder, unsigned run)
{
    struct fl_trace_entry *entries = NULL;
    uint8_t *id = recorder->content_id[recorder->fetched];
    uint64_t have = 0;
    uint64_t total = 1;
    while (have < total) {
        uint64_t count = 0;
        if (fetch_part(recorder, run, have, &entries, &count, &total, id) != OK) {
            free(entries);
            return false;
        }
        have += count;
    }
    recorder->recording[recorder->fetched++] =
        (struct fl_recording){.entries = entries, .count = total, .content_id = id};
    return true;
}

static void count_now(struct recorder *recorder, const json_t *order)
{
    size_t i;
    const json_t *run;
    recorder->recorded_now = 0;
    recorder->pages_now = 0;
    json_array_foreach(json_object_get(order, "recordings"), i, run)
    {
        if (json_is_true(json_object_get(run, "complete")))
            continue;
        recorder->recorded_now++;
        recorder->pages_now += (uint64_t)json_integer_value(json_object_get(run, "pages"));
    }
}

static void fetch_complete(struct recorder *recorder, const json_t *order)
{
    json_int_t complete = json_integer_value(json_object_get(order, "complete"));
    while (recorder->of_order < complete && recorder->fetched < recorder->runs &&
           fetch_recording(recorder, recorder->of_order))
        recorder->of_order++;
    count_now(recorder, order);
}

// Orders the rest, because the engine that had the order has died.
static int order_rest(struct recorder *recorder)
{
    long status = 0;
    json_t *answer = NULL;
    json_t *order = make_order(recorder);
    recorder->of_order = 0;
    control_try(recorder->control, "POST", recordings, order, &status, &answer);
    json_decref(order);
    int result = status == 0 || status == OK || status == CREATED ? EXIT_DONE
                                                                  : order_refused(recorder, answer);
    json_decref(answer);
    return result;
}

int recorder_look(struct recorder *recorder)
{
    char path[PATH_BYTES];
    long status = 0;
    json_t *answer = NULL;
    int result = EXIT_DONE;
    snprintf(path, sizeof(path), "%s?image=%s", recordings, recorder->image);
    control_try(recorder->control, NULL, path, NULL, &status, &answer);
    const char *id = json_string_value(json_object_get(answer, "id"));
    if (status == NOT_FOUND)
        result = order_rest(recorder);
    else if (status == OK && id && strcmp(id, recorder->id) == 0)
        fetch_complete(recorder, answer);
    else if (status == OK)
        result = cli_fail(recorder->verb, "another order to record image %s is under way",
                          recorder->image);
    else if (status != 0)
        result = order_refused(recorder, answer);
    json_decref(answer);
    return result;
}

void recorder_end(struct recorder *recorder)
{
    char path[PATH_BYTES];
    long status = 0;
    json_t *answer = NULL;
    if (!recorder->ordered)
        return;
    recorder->ordered = false;
    // Another recorder's order must not be cancelled.
    snprintf(path, sizeof(path), "%s?image=%s", recordings, recorder->image);
    control_try(recorder->control, NULL, path, NULL, &status, &answer);
    const char *id = json_string_value(json_object_get(answer, "id"));
    bool ours = status == OK && id && strcmp(id, recorder->id) == 0;
    json_decref(answer);
    if (!ours)
        return;
    json_t *body = json_pack("{s:s}", "image", recorder->image);
    control_try(recorder->control, "DELETE", recordings, body, &status, &answer);
    json_decref(body);
    json_decref(answer);
}

void recorder_free(struct recorder *recorder)
{
    for (unsigned i = 0; i < recorder->fetched; i++)
        free((void *)(uintptr_t)recorder->recording[i].entries);
    recorder->fetched = 0;
}
