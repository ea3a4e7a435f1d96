// SPDX-License-Identifier: Apache-2.0
//
// What lower rooms ask of upper ones: their tables of callbacks, filled in. Control thread only.
#include <errno.h>

#include "engine/accept/attach.h"
#include "engine/accept/connections.h"
#include "engine/accept/drain.h"
#include "engine/accept/listen.h"
#include "engine/base/crash_point.h"
#include "engine/control/control.h"
#include "engine/files/files.h"
#include "engine/image/images.h"
#include "engine/link/death_watch.h"
#include "engine/link/keeper_link.h"
#include "engine/server/server.h"
#include "engine/server/server_internal.h"
#include "engine/takeover/heartbeat.h"
#include "engine/takeover/takeover.h"
#include "engine/template/templates.h"

// --- of the link to the keeper ---

static void take_record(void *arg, const struct fl_message *message, int fds[FL_CHANNEL_FDS])
{
    struct fl_server *server = arg;
    fl_takeover_record(&server->takeover, message, fds);
}

static void free_held_vm(void *arg, uint64_t id)
{
    struct fl_server *server = arg;
    fl_takeover_freed(&server->takeover, id);
}

static void serve(void *arg, uint64_t generation)
{
    fl_server_serve(arg, generation);
}

// Images before what is of them.
static unsigned put_all_records(void *arg)
{
    struct fl_server *server = arg;
    struct fl_engine *engine = server->engine;
    fl_inherited_counters_keep(&server->takeover.counters, true);
    fl_drain_keep_mode(&server->acceptor);
    fl_images_keep_all(engine->images);
    fl_files_keep(engine->files);
    fl_templates_keep_all(engine->templates);
    fl_attach_keep_all(engine);
    FL_CRASH_POINT("vms_put");
    fl_listeners_keep(&server->acceptor);
    fl_connections_keep(&server->acceptor);
    fl_inherited_sockets_keep(&server->sockets);
    return engine->vms.count;
}

static void take_heartbeat(void *arg)
{
    struct fl_server *server = arg;
    fl_heartbeat_take(server->heartbeat);
}

static void stop_server(void *arg, uint64_t timeout_ms)
{
    fl_server_stop(arg, timeout_ms);
}

static void yield_server(void *arg)
{
    fl_server_yield(arg);
}

static void note_keeper_lost(void *arg, bool outside)
{
    fl_server_keeper_lost(arg, outside);
}

int fl_server_start_keeper_link(struct fl_server *server)
{
    static const struct fl_keeper_link_ops ops = {
        .record = take_record,
        .freed = free_held_vm,
        .serve = serve,
        .put_all = put_all_records,
        .ping = take_heartbeat,
        .stop = stop_server,
        .yield = yield_server,
        .lost = note_keeper_lost,
    };
    const struct fl_keeper_link_options options = {
        .loop = &server->loop,
        .channel = server->options->channel,
        .life_fd = server->engine->life_fd,
        .ops = &ops,
        .arg = server,
    };
    return fl_keeper_link_start(&options, &server->engine->keeper_link);
}

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

// --- of the file door ---

static void files_gone(void *arg)
{
    struct fl_server *server = arg;
    fl_lacks(&server->engine->degraded, FL_LACK_FILES,
             "the files of %s are not mounted any more: the next start of the server mounts them",
             server->options->files ? server->options->files : "images");
}

static void files_hidden(void *arg, bool hidden)
{
    struct fl_server *server = arg;
    if (hidden)
        fl_lacks(&server->engine->degraded, FL_LACK_FILES,
                 "nothing is mounted at %s any more: files that are open go on, and no other can "
                 "be opened before all of them are closed and the server is started anew",
                 server->options->files ? server->options->files : "the files' directory");
    else
        fl_has(&server->engine->degraded, FL_LACK_FILES);
}

int fl_server_start_files(struct fl_server *server)
{
    struct fl_engine *engine = server->engine;
    const struct fl_server_options *with = server->options;
    const struct fl_files_options options = {
        .images = engine->images,
        .place = server->acceptor.place,
        .keeper_link = engine->keeper_link,
        .io_pool = engine->io_pool,
        .cache = engine->cache,
        .control = &engine->control,
        .loop = &server->loop,
        .warm = with->engine.replay,
        .path = with->files,
        .store = with->store,
        .warm_bytes = with->engine.replay_bytes,
        .warm_reserve = with->engine.replay_reserve,
        .life = engine->life,
        .counts = &engine->counts->files,
        .life_slot = FL_LIFE_TABLE_FILES,
        .read_timeout_ms = with->engine.read_timeout_ms,
        .uid = with->access.uid,
        .gid = with->access.gid,
        .mode = with->access.mode,
        .gone = files_gone,
        .hidden = files_hidden,
        .arg = server,
    };
    return fl_files_new(&options, &engine->files);
}

// --- of the control API ---

static void ask_workers(void *arg)
{
    struct fl_server *server = arg;
    fl_heartbeat_probe(server->heartbeat);
}

int fl_server_start_control(struct fl_server *server)
{
    const struct fl_control_ops ops = {.ask_workers = ask_workers, .arg = server};
    server->api = server->options->api;
    server->api.place[FL_DOOR_CONTROL] = server->options->control;
    server->control = fl_control_new(&server->acceptor, &server->api, &ops);
    return server->control ? 0 : -ENOMEM;
}
