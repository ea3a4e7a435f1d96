// SPDX-License-Identifier: Apache-2.0
#include "engine/control/control_request.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/listen.h"
#include "snapshot/read.h"

enum { SENTENCE_BYTES = 4096 + 256 }; // a path and what is to be said of it

// Takes the text. NULL without memory.
static struct MHD_Response *make_response(const char *type, char *text)
{
    if (!text)
        return NULL;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    if (!response)
        free(text);
    else
        MHD_add_response_header(response, "Content-Type", type);
    return response;
}

// `allow`: what the header Allow says; NULL: there is none.
static enum MHD_Result send_text(struct MHD_Connection *client, unsigned status, const char *type,
                                 const char *allow, char *text)
{
    struct MHD_Response *response = make_response(type, text);
    if (!response)
        return MHD_NO;
    if (allow)
        MHD_add_response_header(response, "Allow", allow);
    enum MHD_Result result = MHD_queue_response(client, status, response);
    MHD_destroy_response(response);
    return result;
}

enum MHD_Result fl_control_send(struct MHD_Connection *client, unsigned status, const char *type,
                                char *text)
{
    return send_text(client, status, type, NULL, text);
}

enum MHD_Result fl_control_send_shared(struct MHD_Connection *client, const char *type, char *text,
                                       struct MHD_Response **shared)
{
    struct MHD_Response *response = make_response(type, text);
    if (!response)
        return MHD_NO;
    enum MHD_Result result = MHD_queue_response(client, MHD_HTTP_OK, response);
    if (shared)
        *shared = response;
    else
        MHD_destroy_response(response);
    return result;
}

enum MHD_Result fl_control_send_json(struct MHD_Connection *client, unsigned status, json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return fl_control_send(client, status, "application/json", text);
}

// What a client has sent in a URL need not be UTF-8, and what is too long is cut anywhere.
static void make_ascii(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text >= 0x80)
            *text = '?';
    }
}

enum MHD_Result fl_control_send_error(struct MHD_Connection *client, unsigned status,
                                      const char *format, ...)
{
    char sentence[SENTENCE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    json_t *object = json_pack("{s:s}", "error", sentence);
    if (!object) {
        make_ascii(sentence);
        object = json_pack("{s:s}", "error", sentence);
    }
    return fl_control_send_json(client, status, object);
}

enum MHD_Result fl_control_send_not_allowed(struct MHD_Connection *client, const char *url,
                                            const char *allowed)
{
    char sentence[SENTENCE_BYTES];
    snprintf(sentence, sizeof(sentence), "%s does not take this method", url);
    json_t *object = json_pack("{s:s}", "error", sentence);
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return send_text(client, MHD_HTTP_METHOD_NOT_ALLOWED, "application/json", allowed, text);
}

bool fl_control_check_name(struct MHD_Connection *client, const char *image,
                           enum MHD_Result *ret_result)
{
    if (fl_name_valid(image))
        return true;
    *ret_result =
        fl_control_send_error(client, MHD_HTTP_BAD_REQUEST, "'%.80s' cannot name an image", image);
    return false;
}

bool fl_control_check_image(const struct fl_acceptor *acceptor, struct MHD_Connection *client,
                            const char *image, enum MHD_Result *ret_result)
{
    if (fl_service_refuses(acceptor->state))
        *ret_result =
            fl_control_send_error(client, MHD_HTTP_SERVICE_UNAVAILABLE,
                                  "the engine takes no new VM: it is draining or stopping");
    else if (!fl_listener_image_exists(acceptor, image))
        *ret_result =
            fl_control_send_error(client, MHD_HTTP_NOT_FOUND, "the store has no image '%s'", image);
    else
        return true;
    return false;
}

enum MHD_Result fl_control_send_too_long(struct MHD_Connection *client)
{
    return fl_control_send_error(client, MHD_HTTP_CONTENT_TOO_LARGE,
                                 "the body is longer than %d bytes", FL_CONTROL_BODY_MAX);
}

static enum MHD_Result send_lacks_memory(struct MHD_Connection *client)
{
    return fl_control_send_error(client, MHD_HTTP_SERVICE_UNAVAILABLE, "the host is out of memory");
}

static const char *why_unread(const json_error_t *error)
{
    enum json_error_code code = json_error_code(error);
    if (code == json_error_duplicate_key)
        return "the body has a key twice";
    if (code == json_error_numeric_overflow)
        return "a number in the body is too big";
    return "the body is not a JSON object";
}

json_t *fl_control_read_body(struct MHD_Connection *client, const struct fl_request *request,
                             enum MHD_Result *ret_result)
{
    json_error_t where;
    if (request->too_long) {
        *ret_result = fl_control_send_too_long(client);
        return NULL;
    }
    if (request->lacks_memory) {
        *ret_result = send_lacks_memory(client);
        return NULL;
    }
    json_t *body = request->used == 0
                       ? json_object()
                       : json_loadb(request->body, request->used, JSON_REJECT_DUPLICATES, &where);
    if (!body && request->used == 0) {
        *ret_result = send_lacks_memory(client);
        return NULL;
    }
    if (!body)
        *ret_result = fl_control_send_error(client, MHD_HTTP_BAD_REQUEST, "%s", why_unread(&where));
    return body;
}

json_t *fl_control_read_image(struct MHD_Connection *client, const struct fl_request *request,
                              const char **ret_image, enum MHD_Result *ret_result)
{
    json_t *body = fl_control_read_body(client, request, ret_result);
    if (!body)
        return NULL;
    if (json_unpack(body, "{s:s !}", "image", ret_image) != 0)
        *ret_result = fl_control_send_error(client, MHD_HTTP_BAD_REQUEST,
                                            "the body must be {\"image\": NAME}");
    else if (fl_control_check_name(client, *ret_image, ret_result))
        return body;
    json_decref(body);
    return NULL;
}
