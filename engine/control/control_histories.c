// SPDX-License-Identifier: Apache-2.0
//
// /v1/histories: of which VMs a history is kept, and each of them; and orders for the next VMs of
// an image.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/accept/acceptor.h"
#include "engine/base/log.h"
#include "engine/control/control_request.h"
#include "engine/control/history_json.h"
#include "engine/control/routes.h"
#include "engine/vm/histories.h"
#include "engine/worker/engine.h"

static json_t *describe_order(const struct fl_history_order *order)
{
    return json_pack("{s:s, s:i, s:i}", "image", order->image, "vms", (int)order->vms, "begun",
                     (int)order->begun);
}

// --- GET ---

static enum MHD_Result send_all(const struct fl_histories *histories, struct MHD_Connection *client)
{
    struct fl_vm_history *history;
    struct fl_history_order *order;
    json_t *list = json_array();
    json_t *orders = json_array();
    cds_list_for_each_entry(history, &histories->all, in_all)
        json_array_append_new(list, fl_history_json_line(history));
    cds_list_for_each_entry(order, &histories->orders, link)
        json_array_append_new(orders, describe_order(order));
    return fl_control_send_json(client, MHD_HTTP_OK,
                                json_pack("{s:i, s:i, s:o, s:o}", "history", (int)histories->keep,
                                          "room", (int)fl_histories_room(histories), "orders",
                                          orders, "histories", list));
}

enum { NO_NUMBER = -1, NONE_GIVEN = -2 };

static int64_t number_of(struct MHD_Connection *client, const char *key)
{
    const char *text = MHD_lookup_connection_value(client, MHD_GET_ARGUMENT_KIND, key);
    if (!text)
        return NONE_GIVEN;
    if (strspn(text, "0123456789") != strlen(text) || *text == '\0' || strlen(text) > 18)
        return NO_NUMBER;
    return strtoll(text, NULL, 10);
}

static enum MHD_Result send_one(const struct fl_histories *histories, struct MHD_Connection *client,
                                int64_t vm)
{
    int64_t log = number_of(client, "log");
    int64_t map = number_of(client, "map");
    if (log == NO_NUMBER || map == NO_NUMBER)
        return fl_control_send_error(client, MHD_HTTP_BAD_REQUEST,
                                     "%s is not a number: that part of the history of VM %" PRId64
                                     " cannot be found",
                                     log == NO_NUMBER ? "log" : "map", vm);
    const struct fl_vm_history *history = fl_histories_find(histories, (uint64_t)vm);
    if (!history)
        return fl_control_send_error(client, MHD_HTTP_NOT_FOUND,
                                     "no history of VM %" PRId64 " is kept", vm);
    if (map >= 0)
        return fl_control_send(client, MHD_HTTP_OK, "application/json",
                               fl_history_json_map(history, (uint64_t)map));
    return fl_control_send_json(client, MHD_HTTP_OK,
                                log >= 0 ? fl_history_json_log(history, (uint64_t)log)
                                         : fl_history_json_head(history));
}

enum MHD_Result fl_control_get_histories(const struct fl_visit *visit,
                                         struct MHD_Connection *client,
                                         const struct fl_request *request)
{
    struct fl_acceptor *acceptor = visit->acceptor;
    (void)request;
    const struct fl_histories *histories = &acceptor->engine->histories;
    int64_t vm = number_of(client, "vm");
    if (vm == NONE_GIVEN)
        return send_all(histories, client);
    if (vm == NO_NUMBER)
        return fl_control_send_error(client, MHD_HTTP_BAD_REQUEST,
                                     "vm is not the number of a VM: its history cannot be found");
    return send_one(histories, client, vm);
}

// --- POST ---

static enum MHD_Result order_history(struct fl_acceptor *acceptor, struct MHD_Connection *client,
                                     const char *image, unsigned vms)
{
    struct fl_histories *histories = &acceptor->engine->histories;
    enum MHD_Result result = MHD_NO;
    if (!fl_control_check_image(acceptor, client, image, &result))
        return result;
    struct fl_history_order *order = fl_histories_order_of(histories, image);
    unsigned status = order ? MHD_HTTP_OK : MHD_HTTP_CREATED;
    if (!order)
        order = fl_histories_order(histories, image, vms);
    if (!order)
        return fl_control_send_error(client, MHD_HTTP_SERVICE_UNAVAILABLE,
                                     "there are too many orders of histories already: image '%s' "
                                     "cannot have one",
                                     image);
    order->vms = vms; // from now on, whatever was ordered before
    order->begun = 0;
    fl_log(FL_LOG_INFO, "event=history image=%s vms=%u", order->image, vms);
    return fl_control_send_json(client, status, describe_order(order));
}

enum MHD_Result fl_control_post_history(const struct fl_visit *visit, struct MHD_Connection *client,
                                        const struct fl_request *request)
{
    struct fl_acceptor *acceptor = visit->acceptor;
    const char *image = NULL;
    json_int_t vms = 1;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_body(client, request, &result);
    if (!body)
        return result;
    if (json_unpack(body, "{s:s, s?:I !}", "image", &image, "vms", &vms) != 0)
        result = fl_control_send_error(client, MHD_HTTP_BAD_REQUEST,
                                       "the body must be {\"image\": NAME, \"vms\": N}");
    else if (vms < 1 || vms > FL_HISTORIES_ORDERED)
        result = fl_control_send_error(client, MHD_HTTP_BAD_REQUEST, "vms is not from 1 to %d",
                                       (int)FL_HISTORIES_ORDERED);
    else if (fl_control_check_name(client, image, &result))
        result = order_history(acceptor, client, image, (unsigned)vms);
    json_decref(body);
    return result;
}

// --- DELETE ---

enum MHD_Result fl_control_delete_history(const struct fl_visit *visit,
                                          struct MHD_Connection *client,
                                          const struct fl_request *request)
{
    struct fl_acceptor *acceptor = visit->acceptor;
    struct fl_histories *histories = &acceptor->engine->histories;
    const char *image = NULL;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_image(client, request, &image, &result);
    struct fl_history_order *order = body ? fl_histories_order_of(histories, image) : NULL;
    if (order) {
        json_t *answer = describe_order(order);
        fl_histories_cancel(histories, order);
        result = fl_control_send_json(client, MHD_HTTP_OK, answer);
    } else if (body) {
        result = fl_control_send_error(client, MHD_HTTP_NOT_FOUND,
                                       "no histories of image '%s' are ordered", image);
    }
    json_decref(body);
    return result;
}
