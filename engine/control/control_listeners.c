// SPDX-License-Identifier: Apache-2.0
//
// /v1/listeners: which there are, one more, one less.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/listen.h"
#include "engine/control/control_request.h"
#include "engine/control/routes.h"

struct order {
    const char *image;
    const char *socket;
    struct fl_socket_access access;
    struct fl_choices choices;
};

// A number, or the octal digits that people know: "0660". -1: neither.
static json_int_t read_mode(const json_t *mode)
{
    const char *text = json_string_value(mode);
    char *end = NULL;
    if (json_is_integer(mode))
        return json_integer_value(mode);
    if (!text || strspn(text, "01234567") != strlen(text) || *text == '\0')
        return -1;
    unsigned long value = strtoul(text, &end, 8);
    return value <= 0777 ? (json_int_t)value : -1;
}

// What is wrong; NULL: nothing.
static const char *read_choices(const char *policy, const char *huge,
                                struct fl_choices *ret_choices)
{
    *ret_choices = (struct fl_choices){.policy = FL_POLICY_DEFAULT, .huge = FL_HUGE_DEFAULT};
    if (policy && !fl_policy_parse(policy, &ret_choices->policy))
        return "on_error is neither \"auto\" nor \"poison\" nor \"kill\"";
    if (huge && !fl_huge_parse(huge, &ret_choices->huge))
        return "huge is neither \"off\" nor \"after-replay\"";
    return NULL;
}

static const char *read_order(const json_t *body, const struct fl_socket_access *defaults,
                              struct order *order)
{
    json_int_t uid = -1;
    json_int_t gid = -1;
    json_t *mode_json = NULL;
    const char *policy = NULL;
    const char *huge = NULL;
    if (json_unpack((json_t *)body, "{s:s, s:s, s?:I, s?:I, s?:o, s?:s, s?:s !}", "image",
                    &order->image, "socket", &order->socket, "uid", &uid, "gid", &gid, "mode",
                    &mode_json, "on_error", &policy, "huge", &huge) != 0)
        return "the body must be {\"image\": NAME, \"socket\": PATH, \"uid\": N, \"gid\": N, "
               "\"mode\": N or OCTAL STRING, \"on_error\": \"auto\", \"poison\" or \"kill\", "
               "\"huge\": \"off\" or \"after-replay\"}";
    const char *reason = read_choices(policy, huge, &order->choices);
    if (reason)
        return reason;
    json_int_t mode = mode_json ? read_mode(mode_json) : (json_int_t)defaults->mode;
    if (order->socket[0] != '/')
        return "the socket's path is not absolute";
    if (uid < -1 || gid < -1 || uid >= UINT32_MAX || gid >= UINT32_MAX || mode < 0 || mode > 0777)
        return "uid, gid or mode is out of range";
    order->access = (struct fl_socket_access){(mode_t)mode, uid < 0 ? defaults->uid : (uid_t)uid,
                                              gid < 0 ? defaults->gid : (gid_t)gid};
    return NULL;
}

static json_t *describe_listener(const struct fl_listener *listener)
{
    return json_pack("{s:s, s:s, s:b, s:b, s:b, s:s}", "image", listener->image, "socket",
                     listener->path, "automatic", listener->automatic, "template",
                     listener->purpose == FL_PURPOSE_TEMPLATE, "reachable", !listener->away, "huge",
                     fl_huge_name(listener->choices.huge));
}

// We listen there already: for the same image it is what was asked for, but for its access.
static enum MHD_Result keep_listener(struct MHD_Connection *client, struct fl_listener *listener,
                                     const struct order *order)
{
    if (strcmp(listener->image, order->image) != 0)
        return fl_control_send_error(client, MHD_HTTP_CONFLICT,
                                     "this server listens at %s for image '%s'", order->socket,
                                     listener->image);
    if (listener->purpose == FL_PURPOSE_TEMPLATE)
        return fl_control_send_error(client, MHD_HTTP_CONFLICT,
                                     "%s is the socket of the template of image '%s'",
                                     order->socket, listener->image);
    if (listener->choices.huge != order->choices.huge)
        return fl_control_send_error(client, MHD_HTTP_CONFLICT,
                                     "this server listens at %s with another choice of huge pages",
                                     order->socket);
    if (listener->choices.policy != order->choices.policy)
        return fl_control_send_error(client, MHD_HTTP_CONFLICT,
                                     "this server listens at %s with another policy on errors",
                                     order->socket);
    int error = fl_listener_set_access(listener, &order->access);
    if (error)
        return fl_control_send_error(client, MHD_HTTP_BAD_REQUEST,
                                     "the access to %s cannot be set: %s", order->socket,
                                     strerror(-error));
    return fl_control_send_json(client, MHD_HTTP_OK, describe_listener(listener));
}

static enum MHD_Result add_listener(struct fl_acceptor *acceptor, struct MHD_Connection *client,
                                    const struct order *order)
{
    const char *reason = NULL;
    enum MHD_Result result = MHD_NO;
    if (!fl_control_check_name(client, order->image, &result) ||
        !fl_control_check_image(acceptor, client, order->image, &result))
        return result;
    struct fl_listener *there = fl_listener_find(acceptor, order->socket);
    if (there && fl_socket_is_at(order->socket, &there->listening))
        return keep_listener(client, there, order);
    int error = fl_listener_add(acceptor, order->image, order->socket, &order->access,
                                &order->choices, false, &reason);
    if (error)
        return fl_control_send_error(
            client, error == -EADDRINUSE ? MHD_HTTP_CONFLICT : MHD_HTTP_BAD_REQUEST,
            "the server cannot listen at %s: %s", order->socket, reason);
    if (there && !there->automatic) // its socket was deleted: no client can reach it
        fl_listener_remove(there);
    return fl_control_send_json(client, MHD_HTTP_CREATED,
                                describe_listener(fl_listener_find(acceptor, order->socket)));
}

enum MHD_Result fl_control_post_listener(const struct fl_visit *visit,
                                         struct MHD_Connection *client,
                                         const struct fl_request *request)
{
    struct fl_acceptor *acceptor = visit->acceptor;
    struct order order;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_body(client, request, &result);
    if (!body)
        return result;
    const char *reason = read_order(body, &acceptor->access, &order);
    result = reason ? fl_control_send_error(client, MHD_HTTP_BAD_REQUEST, "%s", reason)
                    : add_listener(acceptor, client, &order);
    json_decref(body);
    return result;
}

static enum MHD_Result take_away(struct fl_acceptor *acceptor, struct MHD_Connection *client,
                                 const char *socket)
{
    struct fl_listener *listener = fl_listener_find(acceptor, socket);
    if (!listener)
        return fl_control_send_error(client, MHD_HTTP_NOT_FOUND,
                                     "this server does not listen at %s", socket);
    if (listener->purpose == FL_PURPOSE_TEMPLATE)
        return fl_control_send_error(
            client, MHD_HTTP_CONFLICT,
            "%s is the socket of the template of image '%s' and is removed with it", socket,
            listener->image);
    if (listener->automatic)
        return fl_control_send_error(client, MHD_HTTP_CONFLICT,
                                     "%s is the socket of image '%s' and is removed with it",
                                     socket, listener->image);
    json_t *answer = describe_listener(listener);
    fl_listener_remove(listener);
    return fl_control_send_json(client, MHD_HTTP_OK, answer);
}

enum MHD_Result fl_control_delete_listener(const struct fl_visit *visit,
                                           struct MHD_Connection *client,
                                           const struct fl_request *request)
{
    struct fl_acceptor *acceptor = visit->acceptor;
    const char *socket = NULL;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_body(client, request, &result);
    if (!body)
        return result;
    if (json_unpack(body, "{s:s !}", "socket", &socket) != 0)
        result = fl_control_send_error(client, MHD_HTTP_BAD_REQUEST,
                                       "the body must be {\"socket\": PATH}");
    else
        result = take_away(acceptor, client, socket);
    json_decref(body);
    return result;
}

enum MHD_Result fl_control_get_listeners(const struct fl_visit *visit,
                                         struct MHD_Connection *client,
                                         const struct fl_request *request)
{
    struct fl_acceptor *acceptor = visit->acceptor;
    (void)request;
    struct fl_listener *listener;
    json_t *list = json_array();
    cds_list_for_each_entry(listener, &acceptor->listeners, link)
        json_array_append_new(list, describe_listener(listener));
    return fl_control_send_json(client, MHD_HTTP_OK, json_pack("{s:o}", "listeners", list));
}
