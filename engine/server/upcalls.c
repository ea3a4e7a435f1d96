// SPDX-License-Identifier: Apache-2.0
//
// What lower rooms ask of upper ones: their tables of callbacks, filled in. Control thread only.
#include "engine/accept/connections.h"
#include "engine/accept/listen.h"
#include "engine/server/server_internal.h"
#include "engine/template/templates.h"

// --- of templates ---

static int open_template_door(void *arg, const char *image, const char *path,
                              const char **ret_reason)
{
    struct fl_server *server = arg;
    return fl_listener_add_template(&server->acceptor, image, path, &server->options->access,
                                    ret_reason);
}

static void close_template_door(void *arg, const char *path)
{
    struct fl_server *server = arg;
    struct fl_listener *listener = fl_listener_find(&server->acceptor, path);
    if (listener && listener->purpose == FL_PURPOSE_TEMPLATE)
        fl_listener_remove(listener);
}

static void template_ready(void *arg, struct fl_template *template, int error)
{
    struct fl_server *server = arg;
    fl_connections_template_ready(&server->acceptor, template, error);
}

static bool server_refuses(void *arg)
{
    const struct fl_server *server = arg;
    return fl_service_refuses(server->acceptor.state);
}

int fl_server_start_templates(struct fl_server *server)
{
    static const struct fl_templates_ops ops = {
        .open_door = open_template_door,
        .close_door = close_template_door,
        .ready = template_ready,
        .refusing = server_refuses,
    };
    struct fl_engine *engine = server->engine;
    const struct fl_templates_options options = {
        .images = engine->images,
        .keeper_link = engine->keeper_link,
        .io_pool = engine->io_pool,
        .control = &engine->control,
        .sockets = server->options->sockets,
        .limit_bytes = server->options->engine.template_bytes,
        .ops = &ops,
        .arg = server,
    };
    return fl_templates_new(&options, &engine->templates);
}
