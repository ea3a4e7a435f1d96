// SPDX-License-Identifier: Apache-2.0
#include "engine/control_request.h"

#include <stdlib.h>
#include <string.h>

enum MHD_Result fl_control_send(struct MHD_Connection *client, unsigned status, const char *type,
                                char *text)
{
    if (!text)
        return MHD_NO;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", type);
    enum MHD_Result result = MHD_queue_response(client, status, response);
    MHD_destroy_response(response);
    return result;
}

enum MHD_Result fl_control_send_json(struct MHD_Connection *client, unsigned status, json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return fl_control_send(client, status, "application/json", text);
}

enum MHD_Result fl_control_send_error(struct MHD_Connection *client, unsigned status,
                                      const char *reason)
{
    return fl_control_send_json(client, status, json_pack("{s:s}", "error", reason));
}

json_t *fl_control_read_body(struct MHD_Connection *client, const struct fl_request *request,
                             enum MHD_Result *ret_result)
{
    json_error_t where;
    if (request->too_long) {
        *ret_result = fl_control_send_error(client, MHD_HTTP_CONTENT_TOO_LARGE,
                                            "the body is longer than 65536 bytes");
        return NULL;
    }
    json_t *body = json_loadb(request->body ? request->body : "", request->used,
                              JSON_REJECT_DUPLICATES, &where);
    if (!body)
        *ret_result = fl_control_send_error(client, MHD_HTTP_BAD_REQUEST, "the body is not JSON");
    return body;
}
