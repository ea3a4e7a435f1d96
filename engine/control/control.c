// SPDX-License-Identifier: Apache-2.0
#include "engine/control/control.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/drain.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/control/control_clients.h"
#include "engine/control/control_request.h"
#include "engine/control/status.h"
#include "engine/link/inherited_sockets.h"
#include "engine/link/keeper_link.h"
#include "engine/worker/engine.h"

enum { TIMEOUT_S = 10, CLIENTS_MAX = 256 };

struct fl_control {
    struct fl_source source; // libmicrohttpd's epoll descriptor
    struct fl_acceptor *acceptor;
    struct fl_listening listening;
    char *path;
    struct MHD_Daemon *daemon;
    struct fl_control_clients clients;
};

// --- requests of the whole server ---

static enum MHD_Result post_drain(struct fl_acceptor *acceptor, struct MHD_Connection *client,
                                  const struct fl_request *request)
{
    int populate = 0;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_body(client, request, &result);
    if (!body)
        return result;
    if (json_unpack(body, "{s?:b !}", "populate", &populate) != 0) {
        result = fl_control_send_error(client, MHD_HTTP_BAD_REQUEST,
                                       "the body must be {\"populate\": BOOLEAN}");
    } else {
        fl_drain(acceptor, populate ? FL_SERVICE_RELEASING : FL_SERVICE_REFUSING);
        result =
            fl_control_send(client, MHD_HTTP_OK, "application/json",
                            fl_status_json(acceptor->engine, fl_service_refuses(acceptor->state)));
    }
    json_decref(body);
    return result;
}

static enum MHD_Result get_status(struct fl_acceptor *acceptor, struct MHD_Connection *client,
                                  const struct fl_request *request)
{
    (void)request;
    return fl_control_send(client, MHD_HTTP_OK, "application/json",
                           fl_status_json(acceptor->engine, fl_service_refuses(acceptor->state)));
}

static enum MHD_Result get_metrics(struct fl_acceptor *acceptor, struct MHD_Connection *client,
                                   const struct fl_request *request)
{
    (void)request;
    return fl_control_send(
        client, MHD_HTTP_OK, "text/plain; version=0.0.4",
        fl_status_prometheus(acceptor->engine, fl_service_refuses(acceptor->state)));
}

static bool upgrade_is_under_way(const struct fl_acceptor *acceptor)
{
    const char *state = NULL;
    json_t *news =
        json_loads(fl_keeper_link_news(acceptor->engine->keeper_link), JSON_DECODE_ANY, NULL);
    bool is = json_unpack(news, "{s:{s:s}}", "upgrade", "state", &state) == 0 &&
              (strcmp(state, "starting") == 0 || strcmp(state, "trial") == 0);
    json_decref(news);
    return is;
}

static enum MHD_Result post_upgrade(struct fl_acceptor *acceptor, struct MHD_Connection *client,
                                    const struct fl_request *request)
{
    const char *engine = "";
    int keeper = 0;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_body(client, request, &result);
    if (!body)
        return result;
    if (json_unpack(body, "{s?:s, s?:b !}", "engine", &engine, "keeper", &keeper) != 0 ||
        (engine[0] != '\0' && engine[0] != '/')) {
        result = fl_control_send_error(
            client, MHD_HTTP_BAD_REQUEST,
            "the body must be {\"engine\": ABSOLUTE PATH, \"keeper\": BOOLEAN}");
    } else if (upgrade_is_under_way(acceptor)) {
        result = fl_control_send_error(client, MHD_HTTP_CONFLICT, "an upgrade is under way");
    } else {
        int error = fl_keeper_link_upgrade(acceptor->engine->keeper_link, engine, keeper != 0);
        result =
            error ? fl_control_send_error(client, MHD_HTTP_SERVICE_UNAVAILABLE, "%s",
                                          error == -ENOTCONN ? "the engine has no keeper"
                                                             : "the path of the engine is too long")
                  : fl_control_send(
                        client, MHD_HTTP_ACCEPTED, "application/json",
                        fl_status_json(acceptor->engine, fl_service_refuses(acceptor->state)));
    }
    json_decref(body);
    return result;
}

// --- requests ---

struct route {
    const char *path;
    const char *method;
    enum MHD_Result (*answer)(struct fl_acceptor *acceptor, struct MHD_Connection *client,
                              const struct fl_request *request);
};

static const struct route routes[] = {
    {"/v1/status", MHD_HTTP_METHOD_GET, get_status},
    {"/metrics", MHD_HTTP_METHOD_GET, get_metrics},
    {"/v1/listeners", MHD_HTTP_METHOD_GET, fl_control_get_listeners},
    {"/v1/listeners", MHD_HTTP_METHOD_POST, fl_control_post_listener},
    {"/v1/listeners", MHD_HTTP_METHOD_DELETE, fl_control_delete_listener},
    {"/v1/recordings", MHD_HTTP_METHOD_GET, fl_control_get_recordings},
    {"/v1/recordings", MHD_HTTP_METHOD_POST, fl_control_post_recording},
    {"/v1/recordings", MHD_HTTP_METHOD_DELETE, fl_control_delete_recording},
    {"/v1/histories", MHD_HTTP_METHOD_GET, fl_control_get_histories},
    {"/v1/histories", MHD_HTTP_METHOD_POST, fl_control_post_history},
    {"/v1/histories", MHD_HTTP_METHOD_DELETE, fl_control_delete_history},
    {"/v1/templates", MHD_HTTP_METHOD_GET, fl_control_get_templates},
    {"/v1/templates", MHD_HTTP_METHOD_POST, fl_control_post_template},
    {"/v1/templates", MHD_HTTP_METHOD_DELETE, fl_control_delete_template},
    {"/v1/drain", MHD_HTTP_METHOD_POST, post_drain},
    {"/v1/upgrade", MHD_HTTP_METHOD_POST, post_upgrade},
};

// libmicrohttpd leaves the body out of the answer to HEAD.
static bool route_takes(const struct route *route, const char *method)
{
    return strcmp(method, route->method) == 0 || (strcmp(method, MHD_HTTP_METHOD_HEAD) == 0 &&
                                                  strcmp(route->method, MHD_HTTP_METHOD_GET) == 0);
}

static void add_allowed(char *allowed, size_t size, const char *method)
{
    size_t used = strlen(allowed);
    snprintf(allowed + used, size - used, "%s%s", used ? ", " : "", method);
    if (strcmp(method, MHD_HTTP_METHOD_GET) == 0)
        add_allowed(allowed, size, MHD_HTTP_METHOD_HEAD);
}

static enum MHD_Result answer_request(struct fl_acceptor *acceptor, struct MHD_Connection *client,
                                      const char *url, const char *method,
                                      const struct fl_request *request)
{
    char allowed[64] = "";
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(url, routes[i].path) != 0)
            continue;
        if (route_takes(&routes[i], method))
            return routes[i].answer(acceptor, client, request);
        add_allowed(allowed, sizeof(allowed), routes[i].method);
    }
    if (*allowed)
        return fl_control_send_not_allowed(client, url, allowed);
    return fl_control_send_error(
        client, MHD_HTTP_NOT_FOUND,
        "there is no such path as %.80s; there are /v1/status, /v1/listeners, /v1/recordings, "
        "/v1/histories, /v1/templates, /v1/drain, /v1/upgrade and /metrics",
        url);
}

static void take_body(struct fl_request *request, const char *data, size_t size)
{
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

// Called once with the headers, then with each part of the body, then at the end.
static enum MHD_Result on_request(void *arg, struct MHD_Connection *client, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **state)
{
    (void)version;
    struct fl_control *control = arg;
    struct fl_request *request = *state;
    if (!request) {
        *state = calloc(1, sizeof(*request));
        return *state ? MHD_YES : MHD_NO;
    }
    if (*size > 0) {
        take_body(request, data, *size);
        *size = 0;
        return MHD_YES;
    }
    return answer_request(control->acceptor, client, url, method, request);
}

static void on_completed(void *arg, struct MHD_Connection *client, void **state,
                         enum MHD_RequestTerminationCode code)
{
    (void)code;
    struct fl_control *control = arg;
    struct fl_request *request = *state;
    fl_control_clients_answered(&control->clients, client);
    if (request)
        free(request->body);
    free(request);
    *state = NULL;
}

// --- start, run, stop ---

static void on_ready(struct fl_source *source, uint32_t events)
{
    (void)source; // fl_control_run() follows in the same round
    (void)events;
}

void fl_control_run(struct fl_control *control)
{
    if (control && control->daemon)
        MHD_run(control->daemon);
}

uint64_t fl_control_next_due(struct fl_control *control)
{
    MHD_UNSIGNED_LONG_LONG ms = 0;
    if (!control || !control->daemon || MHD_get_timeout(control->daemon, &ms) != MHD_YES)
        return FL_NEVER;
    return fl_now() + ms * FL_NS_PER_MS;
}

__attribute__((format(printf, 2, 0))) static void on_log(void *arg, const char *format,
                                                         va_list args)
{
    (void)arg;
    char text[256];
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    fl_log(FL_LOG_WARNING, "event=control_api reason=\"%s\"", text);
}

static int start_daemon(struct fl_control *control)
{
    control->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, control,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET, control->listening.fd,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, control, MHD_OPTION_NOTIFY_CONNECTION,
        fl_control_clients_notify, &control->clients, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)TIMEOUT_S, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CLIENTS_MAX, MHD_OPTION_END);
    if (!control->daemon)
        return -EIO;
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(control->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return -EIO;
    control->source = (struct fl_source){.fd = info->epoll_fd, .ready = on_ready};
    return fl_loop_watch(control->acceptor->loop, &control->source, EPOLLIN);
}

// A client that can reach it can have the engine listen anywhere: so its owner alone can.
static const struct fl_socket_access access_of_owner = {0600, (uid_t)-1, (gid_t)-1};

// A predecessor's socket, to which clients may have connected already, or one of our own.
static int get_socket(struct fl_control *control)
{
    return fl_inherited_sockets_listen(control->acceptor->sockets, FL_SOCKET_CONTROL, control->path,
                                       SOCK_STREAM, &access_of_owner, &control->listening);
}

static void say_why(const struct fl_control *control, int error, struct fl_error *ret_error)
{
    if (error == -EADDRINUSE)
        fl_fail_plain(ret_error, error, "another server listens at %s", control->path);
    else
        fl_fail(ret_error, error, "the server cannot listen at %s", control->path);
}

// The listening socket is ours again.
static void stop_daemon(struct fl_control *control)
{
    if (!control->daemon)
        return;
    fl_loop_unwatch(control->acceptor->loop, &control->source);
    MHD_quiesce_daemon(control->daemon);
    MHD_stop_daemon(control->daemon);
    control->daemon = NULL;
}

static int start_anew(struct fl_control *control, struct fl_error *ret_error)
{
    int error = start_daemon(control);
    return error ? fl_fail(ret_error, error, "the control API cannot start at %s", control->path)
                 : 0;
}

int fl_control_start(struct fl_acceptor *acceptor, const char *path,
                     struct fl_control **ret_control, struct fl_error *ret_error)
{
    struct fl_control *control = calloc(1, sizeof(*control));
    char *copy = control ? strdup(path) : NULL;
    if (!copy) {
        free(control);
        return fl_fail_plain(ret_error, -ENOMEM, "the host is out of memory");
    }
    control->acceptor = acceptor;
    control->listening.fd = -1;
    control->path = copy;
    fl_control_clients_init(&control->clients);
    int error = get_socket(control);
    if (error)
        say_why(control, error, ret_error);
    else
        error = start_anew(control, ret_error);
    if (error) {
        if (control->listening.fd >= 0)
            fl_inherited_sockets_forget(acceptor->sockets, FL_SOCKET_CONTROL); // it is closed here
        fl_control_stop(control);
        return error;
    }
    *ret_control = control;
    return 0;
}

// The new one is there before the old one is given up.
int fl_control_look(struct fl_control *control, struct fl_error *ret_error)
{
    struct fl_listening new;
    if (fl_socket_is_at(control->path, &control->listening))
        return control->daemon ? 0 : start_anew(control, ret_error);
    int error = fl_socket_listen(control->path, SOCK_STREAM, &access_of_owner, &new);
    if (error) {
        say_why(control, error, ret_error);
        return error;
    }
    stop_daemon(control);
    fl_inherited_sockets_replace(control->acceptor->sockets, FL_SOCKET_CONTROL,
                                 new.fd); // closes the old one
    control->listening = new;
    return start_anew(control, ret_error);
}

void fl_control_stop(struct fl_control *control)
{
    if (!control)
        return;
    stop_daemon(control);
    fl_socket_close(control->path, &control->listening);
    free(control->path);
    free(control);
}
