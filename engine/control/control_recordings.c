// SPDX-License-Identifier: Apache-2.0
//
// /v1/recordings: which images' next VMs are recorded, what has been recorded, and enough of it.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/listen.h"
#include "engine/base/hex.h"
#include "engine/base/log.h"
#include "engine/control/control_request.h"
#include "engine/control/routes.h"
#include "engine/worker/engine.h"

enum { PAGES_AT_ONCE = 65536, DEFAULT_WINDOW_MS = 30000, DEFAULT_SHARE = 50 };

static json_t *describe_run(const struct fl_vm_recording *touches)
{
    char content_id[65];
    fl_hex(touches->content_id, sizeof(touches->content_id), content_id);
    return json_pack("{s:I, s:b, s:I, s:s}", "vm", (json_int_t)touches->vm_id, "complete",
                     touches->ended, "pages", (json_int_t)fl_counter_get(&touches->count),
                     "content_id", content_id);
}

static json_t *describe_recording(const struct fl_order *order)
{
    struct fl_vm_recording *touches;
    json_t *runs = json_array();
    cds_list_for_each_entry(touches, &order->records, in_order)
        json_array_append_new(runs, describe_run(touches));
    return json_pack("{s:s, s:s, s:i, s:I, s:i, s:i, s:o}", "image", order->image, "id", order->id,
                     "runs", (int)order->runs, "window_ms", (json_int_t)order->window_ms, "share",
                     (int)order->share, "complete", (int)order->ended, "recordings", runs);
}

// --- POST ---

// The image's name is not looked at yet.
static const char *read_order(json_t *body, struct fl_order *order, const char **ret_image)
{
    const char *id = "";
    json_int_t runs = 1;
    json_int_t window_ms = DEFAULT_WINDOW_MS;
    json_int_t share = DEFAULT_SHARE;
    if (json_unpack(body, "{s:s, s?:s, s?:I, s?:I, s?:I !}", "image", ret_image, "id", &id, "runs",
                    &runs, "window_ms", &window_ms, "share", &share) != 0)
        return "the body must be {\"image\": NAME, \"id\": TEXT, \"runs\": N, \"window_ms\": N, "
               "\"share\": PERCENT}";
    if (strlen(id) > FL_ORDER_ID_MAX)
        return "the id is longer than 64 bytes";
    if (runs < 1 || runs > FL_ORDER_RUNS_MOST)
        return "runs is not from 1 to 64";
    if (window_ms < 1 || (uint64_t)window_ms > FL_ORDER_WINDOW_MOST_MS)
        return "window_ms is not from 1 to 3600000";
    if (share < 1 || share > 100)
        return "share is not from 1 to 100";
    *order = (struct fl_order){
        .runs = (unsigned)runs, .window_ms = (uint64_t)window_ms, .share = (unsigned)share};
    snprintf(order->image, sizeof(order->image), "%s", *ret_image);
    snprintf(order->id, sizeof(order->id), "%s", id);
    return NULL;
}

// An order that comes without a name gets one that no engine gives twice.
static void name_recording(struct fl_order *order)
{
    struct timespec now;
    if (order->id[0] != '\0')
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(order->id, sizeof(order->id), "%lld.%09ld", (long long)now.tv_sec, now.tv_nsec);
}

static enum MHD_Result add_recording(struct fl_acceptor *acceptor, struct MHD_Connection *client,
                                     struct fl_order *wanted)
{
    struct fl_recording_orders *recordings = &acceptor->engine->recordings;
    enum MHD_Result result = MHD_NO;
    if (!fl_control_check_image(acceptor, client, wanted->image, &result))
        return result;
    const struct fl_order *there = fl_recording_orders_find(recordings, wanted->image);
    if (there && strcmp(there->id, wanted->id) == 0)
        return fl_control_send_json(client, MHD_HTTP_OK, describe_recording(there));
    if (there)
        return fl_control_send_error(client, MHD_HTTP_CONFLICT,
                                     "another client has ordered recordings of image '%s': wait "
                                     "for them, or 'faultline record --cancel %s'",
                                     there->image, there->image);
    name_recording(wanted);
    const struct fl_order *order = fl_recording_orders_add(recordings, wanted);
    if (!order)
        return fl_control_send_error(
            client, MHD_HTTP_SERVICE_UNAVAILABLE,
            "there are too many orders to record already: image '%s' cannot "
            "have one",
            wanted->image);
    fl_log(FL_LOG_INFO, "event=record image=%s runs=%u window_ms=%" PRIu64 " share=%u",
           order->image, order->runs, order->window_ms, order->share);
    return fl_control_send_json(client, MHD_HTTP_CREATED, describe_recording(order));
}

enum MHD_Result fl_control_post_recording(const struct fl_visit *visit,
                                          struct MHD_Connection *client,
                                          const struct fl_request *request)
{
    struct fl_acceptor *acceptor = visit->acceptor;
    struct fl_order order;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_body(client, request, &result);
    if (!body)
        return result;
    const char *image = NULL;
    const char *reason = read_order(body, &order, &image);
    if (reason)
        result = fl_control_send_error(client, MHD_HTTP_BAD_REQUEST, "%s", reason);
    else if (fl_control_check_name(client, image, &result))
        result = add_recording(acceptor, client, &order);
    json_decref(body);
    return result;
}

// --- GET ---

static enum MHD_Result send_all(struct fl_acceptor *acceptor, struct MHD_Connection *client)
{
    struct fl_order *order;
    json_t *list = json_array();
    cds_list_for_each_entry(order, &acceptor->engine->recordings.orders, link)
        json_array_append_new(list, describe_recording(order));
    return fl_control_send_json(client, MHD_HTTP_OK, json_pack("{s:o}", "orders", list));
}

// -1: it is none.
static int64_t number_of(struct MHD_Connection *client, const char *key)
{
    const char *text = MHD_lookup_connection_value(client, MHD_GET_ARGUMENT_KIND, key);
    char *end = NULL;
    if (!text)
        return 0;
    if (strspn(text, "0123456789") != strlen(text) || *text == '\0' || strlen(text) > 18)
        return -1;
    return strtoll(text, &end, 10);
}

// By hand: a tree of as many numbers would take a hundred times the memory, and the control thread
// its time.
static enum MHD_Result send_pages(struct MHD_Connection *client,
                                  const struct fl_vm_recording *touches, uint64_t from)
{
    char *text = NULL;
    size_t size = 0;
    char content_id[65];
    uint64_t count = fl_counter_get(&touches->count);
    from = from < count ? from : count;
    uint64_t end = count - from > PAGES_AT_ONCE ? from + PAGES_AT_ONCE : count;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return MHD_NO;
    fl_hex(touches->content_id, sizeof(touches->content_id), content_id);
    fprintf(out,
            "{\"vm\":%" PRIu64 ",\"content_id\":\"%s\",\"from\":%" PRIu64 ",\"total\":%" PRIu64
            ",\"pages\":[",
            touches->vm_id, content_id, from, count);
    for (uint64_t i = from; i < end; i++)
        fprintf(out, "%s%" PRIu64, i > from ? "," : "", touches->entry[i].page);
    fputs("],\"ms\":[", out);
    for (uint64_t i = from; i < end; i++)
        fprintf(out, "%s%" PRIu32, i > from ? "," : "", touches->entry[i].ms);
    fputs("]}", out);
    if (fclose(out) != 0) {
        free(text);
        return MHD_NO;
    }
    return fl_control_send(client, MHD_HTTP_OK, "application/json", text);
}

static enum MHD_Result send_none(struct MHD_Connection *client, const char *image)
{
    return fl_control_send_error(client, MHD_HTTP_NOT_FOUND,
                                 "no recordings of image '%s' are ordered", image);
}

static enum MHD_Result send_run(struct MHD_Connection *client, const struct fl_order *order)
{
    int64_t run = number_of(client, "run");
    int64_t from = number_of(client, "from");
    if (run < 0 || from < 0)
        return fl_control_send_error(
            client, MHD_HTTP_BAD_REQUEST,
            "%s is not a number: a recording of image '%s' cannot be found",
            run < 0 ? "run" : "from", order->image);
    const struct fl_vm_recording *touches =
        run < FL_ORDER_RUNS_MOST ? fl_order_run(order, (unsigned)run) : NULL;
    return touches
               ? send_pages(client, touches, (uint64_t)from)
               : fl_control_send_error(client, MHD_HTTP_NOT_FOUND,
                                       "image '%s' has %u complete recordings, and none has number "
                                       "%" PRId64,
                                       order->image, order->ended, run);
}

enum MHD_Result fl_control_get_recordings(const struct fl_visit *visit,
                                          struct MHD_Connection *client,
                                          const struct fl_request *request)
{
    struct fl_acceptor *acceptor = visit->acceptor;
    (void)request;
    const char *image = MHD_lookup_connection_value(client, MHD_GET_ARGUMENT_KIND, "image");
    if (!image)
        return send_all(acceptor, client);
    enum MHD_Result result = MHD_NO;
    if (!fl_control_check_name(client, image, &result))
        return result;
    const struct fl_order *order = fl_recording_orders_find(&acceptor->engine->recordings, image);
    if (!order)
        return send_none(client, image);
    if (MHD_lookup_connection_value(client, MHD_GET_ARGUMENT_KIND, "run"))
        return send_run(client, order);
    return fl_control_send_json(client, MHD_HTTP_OK, describe_recording(order));
}

// --- DELETE ---

static enum MHD_Result drop_recording(struct fl_acceptor *acceptor, struct MHD_Connection *client,
                                      const char *image)
{
    struct fl_recording_orders *recordings = &acceptor->engine->recordings;
    struct fl_order *order = fl_recording_orders_find(recordings, image);
    if (!order)
        return send_none(client, image);
    json_t *answer = describe_recording(order);
    fl_recording_orders_remove(recordings, order);
    return fl_control_send_json(client, MHD_HTTP_OK, answer);
}

enum MHD_Result fl_control_delete_recording(const struct fl_visit *visit,
                                            struct MHD_Connection *client,
                                            const struct fl_request *request)
{
    struct fl_acceptor *acceptor = visit->acceptor;
    const char *image = NULL;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_image(client, request, &image, &result);
    if (body)
        result = drop_recording(acceptor, client, image);
    json_decref(body);
    return result;
}
