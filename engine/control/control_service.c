// SPDX-License-Identifier: Apache-2.0
//
// Requests of the whole server: how it is, that it drain, that another engine take over.
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "engine/accept/acceptor.h"
#include "engine/accept/drain.h"
#include "engine/accept/keeper_state.h"
#include "engine/control/control_request.h"
#include "engine/control/health.h"
#include "engine/control/routes.h"
#include "engine/control/status.h"
#include "engine/link/keeper_link.h"
#include "engine/worker/engine.h"

static enum MHD_Result send_status(const struct fl_visit *visit, struct MHD_Connection *client,
                                   unsigned status)
{
    struct fl_acceptor *acceptor = visit->acceptor;
    return fl_control_send(client, status, "application/json",
                           fl_status_json(acceptor->engine, fl_service_refuses(acceptor->state)));
}

// The place of an answer that was given in this turn already; NULL: none is to be given twice.
static struct MHD_Response **shared_of(const struct fl_visit *visit, enum fl_shared which)
{
    return visit->shared ? &visit->shared[which] : NULL;
}

enum MHD_Result fl_control_get_status(const struct fl_visit *visit, struct MHD_Connection *client,
                                      const struct fl_request *request)
{
    (void)request;
    struct fl_acceptor *acceptor = visit->acceptor;
    struct MHD_Response **shared = shared_of(visit, FL_SHARED_STATUS);
    if (shared && *shared)
        return MHD_queue_response(client, MHD_HTTP_OK, *shared);
    return fl_control_send_shared(
        client, "application/json",
        fl_status_json(acceptor->engine, fl_service_refuses(acceptor->state)), shared);
}

enum MHD_Result fl_control_get_metrics(const struct fl_visit *visit, struct MHD_Connection *client,
                                       const struct fl_request *request)
{
    (void)request;
    struct fl_acceptor *acceptor = visit->acceptor;
    struct MHD_Response **shared = shared_of(visit, FL_SHARED_METRICS);
    if (shared && *shared)
        return MHD_queue_response(client, MHD_HTTP_OK, *shared);
    return fl_control_send_shared(
        client, "text/plain; version=0.0.4",
        fl_status_prometheus(acceptor->engine, fl_service_refuses(acceptor->state)), shared);
}

// --- health ---

static enum MHD_Result send_health(struct MHD_Connection *client, char *text, bool well)
{
    return fl_control_send(client, well ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
                           "text/plain; charset=utf-8", text);
}

enum MHD_Result fl_control_get_healthz(const struct fl_visit *visit, struct MHD_Connection *client,
                                       const struct fl_request *request)
{
    (void)request;
    bool well = false;
    char *text = fl_health_live(visit->health, &well);
    return send_health(client, text, well);
}

enum MHD_Result fl_control_get_readyz(const struct fl_visit *visit, struct MHD_Connection *client,
                                      const struct fl_request *request)
{
    (void)request;
    bool well = false;
    char *text = fl_health_ready(visit->health, &well);
    return send_health(client, text, well);
}

// --- orders ---

enum MHD_Result fl_control_post_drain(const struct fl_visit *visit, struct MHD_Connection *client,
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
        fl_drain(visit->acceptor, populate ? FL_SERVICE_RELEASING : FL_SERVICE_REFUSING);
        result = send_status(visit, client, MHD_HTTP_OK);
    }
    json_decref(body);
    return result;
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

static enum MHD_Result upgrade(const struct fl_visit *visit, struct MHD_Connection *client,
                               const char *engine, bool keeper)
{
    if (fl_keeper_is_stopped(visit->acceptor->engine)) {
        char reason[FL_LACK_REASON];
        fl_keeper_stopped_reason(visit->acceptor->engine, reason, sizeof(reason));
        return fl_control_send_error(client, MHD_HTTP_SERVICE_UNAVAILABLE, "%s", reason);
    }
    if (upgrade_is_under_way(visit->acceptor))
        return fl_control_send_error(client, MHD_HTTP_CONFLICT, "an upgrade is under way");
    int error = fl_keeper_link_upgrade(visit->acceptor->engine->keeper_link, engine, keeper);
    if (error)
        return fl_control_send_error(client, MHD_HTTP_SERVICE_UNAVAILABLE, "%s",
                                     error == -ENOTCONN ? "the engine has no keeper"
                                                        : "the path of the engine is too long");
    return send_status(visit, client, MHD_HTTP_ACCEPTED);
}

enum MHD_Result fl_control_post_upgrade(const struct fl_visit *visit, struct MHD_Connection *client,
                                        const struct fl_request *request)
{
    const char *engine = "";
    int keeper = 0;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_body(client, request, &result);
    if (!body)
        return result;
    if (json_unpack(body, "{s?:s, s?:b !}", "engine", &engine, "keeper", &keeper) != 0 ||
        (engine[0] != '\0' && engine[0] != '/'))
        result = fl_control_send_error(
            client, MHD_HTTP_BAD_REQUEST,
            "the body must be {\"engine\": ABSOLUTE PATH, \"keeper\": BOOLEAN}");
    else
        result = upgrade(visit, client, engine, keeper != 0);
    json_decref(body);
    return result;
}
