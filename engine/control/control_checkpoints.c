// SPDX-License-Identifier: Apache-2.0
//
// /v1/checkpoints: an orchestrator that owns the API of its VMs has a checkpoint taken, is told
// when to pause and when to resume, and says that it has paused.
#include "engine/control/checkpoints.h"
#include "engine/control/control_clients.h"
#include "engine/control/control_request.h"
#include "engine/control/routes.h"

enum MHD_Result fl_control_get_checkpoints(const struct fl_visit *visit,
                                           struct MHD_Connection *client,
                                           const struct fl_request *request)
{
    (void)request;
    return fl_control_send_json(client, MHD_HTTP_OK, fl_checkpoints_json(visit->checkpoints));
}

static enum MHD_Result begin(const struct fl_visit *visit, struct MHD_Connection *client,
                             const struct fl_checkpoint_order *order)
{
    enum MHD_Result result = MHD_NO;
    struct fl_error error;
    unsigned refused = fl_checkpoints_begin(visit->checkpoints, order, client, &result, &error);
    if (refused)
        return fl_control_send_error(client, refused, "%s", error.text);
    fl_control_clients_excuse(visit->clients, client);
    return result;
}

enum MHD_Result fl_control_post_checkpoint(const struct fl_visit *visit,
                                           struct MHD_Connection *client,
                                           const struct fl_request *request)
{
    struct fl_checkpoint_order order;
    struct fl_error error;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_body(client, request, &result);
    if (!body)
        return result;
    if (fl_checkpoint_order_read(body, visit->options->place[FL_DOOR_CONTROL], &order, &error) != 0)
        result = fl_control_send_error(client, MHD_HTTP_BAD_REQUEST, "%s", error.text);
    else
        result = begin(visit, client, &order);
    json_decref(body);
    return result;
}

// The checkpoint of {"vm": N} or {"pid": N}; NULL after an error was sent.
static struct fl_checkpoint *find_ordered(const struct fl_visit *visit,
                                          struct MHD_Connection *client,
                                          const struct fl_request *request,
                                          enum MHD_Result *ret_result)
{
    json_int_t vm = -1;
    json_int_t pid = -1;
    struct fl_checkpoint_of of;
    char text[FL_CHECKPOINT_OF_TEXT];
    struct fl_checkpoint *checkpoint = NULL;
    json_t *body = fl_control_read_body(client, request, ret_result);
    if (!body)
        return NULL;
    bool usable = json_unpack(body, "{s?:I, s?:I !}", "vm", &vm, "pid", &pid) == 0 &&
                  fl_checkpoint_of_read(vm, pid, &of);
    json_decref(body);
    if (usable)
        checkpoint = fl_checkpoints_find(visit->checkpoints, &of);
    if (!usable)
        *ret_result = fl_control_send_error(client, MHD_HTTP_BAD_REQUEST,
                                            "the body must be {\"vm\": N} or {\"pid\": N}");
    else if (!checkpoint)
        *ret_result = fl_control_send_error(client, MHD_HTTP_NOT_FOUND,
                                            "no checkpoint of %s was ordered, or it has ended",
                                            fl_checkpoint_of_text(&of, text));
    return checkpoint;
}

enum MHD_Result fl_control_post_paused(const struct fl_visit *visit, struct MHD_Connection *client,
                                       const struct fl_request *request)
{
    enum MHD_Result result = MHD_NO;
    struct fl_checkpoint *checkpoint = find_ordered(visit, client, request, &result);
    if (!checkpoint)
        return result;
    if (!fl_checkpoint_paused(checkpoint))
        return fl_control_send_error(client, MHD_HTTP_CONFLICT,
                                     "that the VM be paused was not asked for, or has been said "
                                     "already");
    return fl_control_send_json(client, MHD_HTTP_OK, fl_checkpoint_json(checkpoint));
}

enum MHD_Result fl_control_delete_checkpoint(const struct fl_visit *visit,
                                             struct MHD_Connection *client,
                                             const struct fl_request *request)
{
    enum MHD_Result result = MHD_NO;
    struct fl_checkpoint *checkpoint = find_ordered(visit, client, request, &result);
    if (!checkpoint)
        return result;
    json_t *was = fl_checkpoint_json(checkpoint);
    fl_checkpoint_cancel(checkpoint);
    return fl_control_send_json(client, MHD_HTTP_OK, was);
}
