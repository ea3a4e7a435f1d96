// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A request is judged when its headers are there: whether this door has the
// path (404), whether the path takes the method (405), whether this peer may give the order (403),
// and whether the body is too large as announced (413). What is refused and has a body is answered
// at once, without it, and its connection is closed; all else is answered at the end of the body.
// A body of unknown length is read on beyond what is taken, so that its sender is told; but not for
// ever.
#include "engine/control/routes.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/control/control_request.h"
#include "engine/control/peer_rights.h"

enum { BODY_CUT_OFF = 16 * FL_CONTROL_BODY_MAX, PATHS_BYTES = 512 };

struct route {
    const char *path;
    const char *method;
    enum MHD_Result (*answer)(const struct fl_visit *visit, struct MHD_Connection *client,
                              const struct fl_request *request);
    bool of_metrics; // is there at the door of the metrics, too
};

// docs/openapi.json says the same to programs; a test compares them.
static const struct route routes[] = {
    {"/v1/status", MHD_HTTP_METHOD_GET, fl_control_get_status, false},
    {"/v1/listeners", MHD_HTTP_METHOD_GET, fl_control_get_listeners, false},
    {"/v1/listeners", MHD_HTTP_METHOD_POST, fl_control_post_listener, false},
    {"/v1/listeners", MHD_HTTP_METHOD_DELETE, fl_control_delete_listener, false},
    {"/v1/recordings", MHD_HTTP_METHOD_GET, fl_control_get_recordings, false},
    {"/v1/recordings", MHD_HTTP_METHOD_POST, fl_control_post_recording, false},
    {"/v1/recordings", MHD_HTTP_METHOD_DELETE, fl_control_delete_recording, false},
    {"/v1/histories", MHD_HTTP_METHOD_GET, fl_control_get_histories, false},
    {"/v1/histories", MHD_HTTP_METHOD_POST, fl_control_post_history, false},
    {"/v1/histories", MHD_HTTP_METHOD_DELETE, fl_control_delete_history, false},
    {"/v1/captures", MHD_HTTP_METHOD_GET, fl_control_get_captures, false},
    {"/v1/captures", MHD_HTTP_METHOD_DELETE, fl_control_delete_capture, false},
    {"/v1/checkpoints", MHD_HTTP_METHOD_GET, fl_control_get_checkpoints, false},
    {"/v1/checkpoints", MHD_HTTP_METHOD_POST, fl_control_post_checkpoint, false},
    {"/v1/checkpoints", MHD_HTTP_METHOD_DELETE, fl_control_delete_checkpoint, false},
    {"/v1/checkpoints/paused", MHD_HTTP_METHOD_POST, fl_control_post_paused, false},
    {"/v1/templates", MHD_HTTP_METHOD_GET, fl_control_get_templates, false},
    {"/v1/templates", MHD_HTTP_METHOD_POST, fl_control_post_template, false},
    {"/v1/templates", MHD_HTTP_METHOD_DELETE, fl_control_delete_template, false},
    {"/v1/huge", MHD_HTTP_METHOD_POST, fl_control_post_huge, false},
    {"/v1/drain", MHD_HTTP_METHOD_POST, fl_control_post_drain, false},
    {"/v1/upgrade", MHD_HTTP_METHOD_POST, fl_control_post_upgrade, false},
    {"/metrics", MHD_HTTP_METHOD_GET, fl_control_get_metrics, true},
    {"/healthz", MHD_HTTP_METHOD_GET, fl_control_get_healthz, true},
    {"/readyz", MHD_HTTP_METHOD_GET, fl_control_get_readyz, true},
};
enum { ROUTES = sizeof(routes) / sizeof(routes[0]) };

static bool is_here(const struct route *route, const struct fl_visit *visit)
{
    return visit->door != FL_DOOR_METRICS || route->of_metrics;
}

// libmicrohttpd leaves the body out of the answer to HEAD.
static bool takes(const struct route *route, const char *method)
{
    return strcmp(method, route->method) == 0 || (strcmp(method, MHD_HTTP_METHOD_HEAD) == 0 &&
                                                  strcmp(route->method, MHD_HTTP_METHOD_GET) == 0);
}

static bool is_order(const struct route *route)
{
    return strcmp(route->method, MHD_HTTP_METHOD_GET) != 0;
}

static void add_allowed(char *allowed, size_t size, const char *method)
{
    size_t used = strlen(allowed);
    snprintf(allowed + used, size - used, "%s%s", used ? ", " : "", method);
    if (strcmp(method, MHD_HTTP_METHOD_GET) == 0)
        add_allowed(allowed, size, MHD_HTTP_METHOD_HEAD);
}

// A proxy may send the whole of a URL: "http://HOST/PATH".
static const char *path_of(const char *url)
{
    static const char scheme[] = "http://";
    if (strncmp(url, scheme, sizeof(scheme) - 1) != 0)
        return url;
    const char *path = strchr(url + sizeof(scheme) - 1, '/');
    return path ? path : "/";
}

// NULL if this door has no such path, or if the path does not take the method; then `allowed` has
// those that it takes.
static const struct route *find_route(const struct fl_visit *visit, const char *path,
                                      const char *method, char *allowed, size_t size)
{
    *allowed = '\0';
    for (int i = 0; i < ROUTES; i++) {
        if (!is_here(&routes[i], visit) || strcmp(path, routes[i].path) != 0)
            continue;
        if (takes(&routes[i], method))
            return &routes[i];
        add_allowed(allowed, size, routes[i].method);
    }
    return NULL;
}

// --- what is refused ---

static enum MHD_Result refuse_path(const struct fl_visit *visit, struct MHD_Connection *client,
                                   const char *path)
{
    char there[PATHS_BYTES] = "";
    const char *last = "";
    for (int i = 0; i < ROUTES; i++) {
        size_t used = strlen(there);
        if (!is_here(&routes[i], visit) || strcmp(routes[i].path, last) == 0)
            continue;
        last = routes[i].path;
        snprintf(there + used, sizeof(there) - used, "%s%s", used ? ", " : "", last);
    }
    return fl_control_send_error(client, MHD_HTTP_NOT_FOUND,
                                 "there is no such path as %.80s here, but these: %s", path, there);
}

static enum MHD_Result refuse_order(const struct fl_visit *visit, struct MHD_Connection *client,
                                    const struct route *route, uid_t uid)
{
    if (visit->door != FL_DOOR_CONTROL)
        return fl_control_send_error(
            client, MHD_HTTP_FORBIDDEN,
            "%s %s is an order, and this socket is for observers: they can "
            "read and not order",
            route->method, route->path);
    return fl_control_send_error(client, MHD_HTTP_FORBIDDEN,
                                 "%s %s is an order, and user %lld may read here and not order: "
                                 "root, the server's own user and those of --control-owner and "
                                 "--control-orders may",
                                 route->method, route->path, (long long)(int)uid);
}

// -1: it has none.
static int socket_of(struct MHD_Connection *client)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(client, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info ? info->connect_fd : -1;
}

static bool may_order(const struct fl_visit *visit, struct MHD_Connection *client, uid_t *ret_uid)
{
    *ret_uid = (uid_t)-1;
    return visit->door == FL_DOOR_CONTROL &&
           fl_peer_may_order(socket_of(client), visit->options, ret_uid);
}

// As its headers announce it: -1 if they do not say how long it is.
static long long body_length(struct MHD_Connection *client)
{
    const char *length =
        MHD_lookup_connection_value(client, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (MHD_lookup_connection_value(client, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING))
        return -1;
    return length ? strtoll(length, NULL, 10) : 0; // libmicrohttpd has refused what is no number
}

// True after an answer was sent.
static bool refuse(const struct fl_visit *visit, struct MHD_Connection *client, const char *url,
                   const char *method, enum MHD_Result *ret_result)
{
    char allowed[64];
    uid_t uid = 0;
    const char *path = path_of(url);
    const struct route *route = find_route(visit, path, method, allowed, sizeof(allowed));
    if (!route && *allowed)
        *ret_result = fl_control_send_not_allowed(client, path, allowed);
    else if (!route)
        *ret_result = refuse_path(visit, client, path);
    else if (is_order(route) && !may_order(visit, client, &uid))
        *ret_result = refuse_order(visit, client, route, uid);
    else if (body_length(client) > FL_CONTROL_BODY_MAX)
        *ret_result = fl_control_send_too_long(client);
    else
        return false;
    return true;
}

// --- a request from its begin to its end ---

static void take_body(struct fl_request *request, const char *data, size_t size)
{
    request->sent += size;
    if (request->used + size > FL_CONTROL_BODY_MAX)
        request->too_long = true;
    if (request->too_long || request->lacks_memory)
        return;
    char *body = realloc(request->body, request->used + size);
    request->lacks_memory = !body;
    if (!body)
        return;
    memcpy(body + request->used, data, size);
    request->body = body;
    request->used += size;
}

static enum MHD_Result begin_request(const struct fl_visit *visit, struct MHD_Connection *client,
                                     const char *url, const char *method, void **state)
{
    enum MHD_Result result = MHD_NO;
    *state = calloc(1, sizeof(struct fl_request));
    if (!*state)
        return MHD_NO;
    if (body_length(client) != 0 && refuse(visit, client, url, method, &result))
        return result;
    return MHD_YES;
}

static enum MHD_Result end_request(const struct fl_visit *visit, struct MHD_Connection *client,
                                   const char *url, const char *method,
                                   const struct fl_request *request)
{
    char allowed[64];
    enum MHD_Result result = MHD_NO;
    if (refuse(visit, client, url, method, &result))
        return result;
    return find_route(visit, path_of(url), method, allowed, sizeof(allowed))
        ->answer(visit, client, request);
}

enum MHD_Result fl_routes_take(const struct fl_visit *visit, struct MHD_Connection *client,
                               const char *url, const char *method, const char *data, size_t *size,
                               void **state)
{
    struct fl_request *request = *state;
    if (!request)
        return begin_request(visit, client, url, method, state);
    if (*size == 0)
        return end_request(visit, client, url, method, request);
    take_body(request, data, *size);
    *size = 0;
    return request->sent > BODY_CUT_OFF ? MHD_NO : MHD_YES;
}

void fl_routes_end(void **state)
{
    struct fl_request *request = *state;
    if (request)
        free(request->body);
    free(request);
    *state = NULL;
}
