// SPDX-License-Identifier: Apache-2.0
//
// Directories are moved, unmounted, cleared out and put back under a server that runs. Once a
// second, and seldom when nothing has happened for a while (pace.h), it looks whether what it needs
// to be found is where it should be, and makes it again where it can. Nothing of this is needed by
// VMs that are served.
#include "engine/accept/accept.h"
#include "engine/accept/keeper_state.h"
#include "engine/accept/listen.h"
#include "engine/accept/room.h"
#include "engine/accept/store_watch.h"
#include "engine/base/clock.h"
#include "engine/control/control.h"
#include "engine/control/totals.h"
#include "engine/link/degraded.h"
#include "engine/server/server.h"
#include "engine/server/server_internal.h"
#include "engine/takeover/keeper_socket.h"
#include "engine/template/templates.h"

#define SELDOM (6 * FL_NS_PER_S)
// The keeper asks every five seconds: a look that is due soon goes with that, and wakes no thread.
#define SOON (2 * FL_NS_PER_S)

static void look_at_control(struct fl_server *server)
{
    static const struct {
        enum fl_lack lack;
        const char *what;
    } doors[FL_DOORS] = {
        [FL_DOOR_CONTROL] = {FL_LACK_CONTROL, "the control API cannot be reached"},
        [FL_DOOR_OBSERVE] = {FL_LACK_OBSERVE, "observers cannot reach the control API"},
        [FL_DOOR_METRICS] = {FL_LACK_METRICS, "the metrics cannot be reached"},
    };
    for (int door = 0; door < FL_DOORS; door++) {
        struct fl_error reason = {""};
        if (fl_control_look(server->control, (enum fl_door_kind)door, &reason) != 0)
            fl_lacks(&server->engine->degraded, doors[door].lack, "%s: %s", doors[door].what,
                     reason.text);
        else
            fl_has(&server->engine->degraded, doors[door].lack);
    }
}

static void look_at_keeper_socket(struct fl_server *server)
{
    struct fl_error reason = {""};
    int error = 0;
    if (server->keeper_socket && !fl_keeper_socket_look(server->keeper_socket)) {
        fl_keeper_socket_stop(server->keeper_socket); // closes it
        server->keeper_socket = NULL;
        fl_inherited_sockets_forget(&server->sockets, FL_SOCKET_KEEPER);
    }
    if (!server->keeper_socket)
        error = fl_keeper_socket_start(&server->takeover, server->options->control,
                                       &server->keeper_socket, &reason);
    if (error)
        fl_lacks(&server->engine->degraded, FL_LACK_KEEPER,
                 "a new keeper would not find the engine: %s", reason.text);
    else
        fl_has(&server->engine->degraded, FL_LACK_KEEPER);
}

static void look_at_keeper(struct fl_server *server)
{
    char reason[FL_LACK_REASON];
    fl_keeper_stopped_reason(server->engine, reason, sizeof(reason));
    if (fl_keeper_is_stopped(server->engine))
        fl_lacks(&server->engine->degraded, FL_LACK_RUNNING_KEEPER, "%s", reason);
    else
        fl_has(&server->engine->degraded, FL_LACK_RUNNING_KEEPER);
}

// What a look may find again. The rest stays as it is until the next start.
static bool is_searching(const struct fl_degraded *degraded)
{
    static const enum fl_lack found_again[] = {
        FL_LACK_STORE,   FL_LACK_SOCKETS,        FL_LACK_CONTROL, FL_LACK_KEEPER,
        FL_LACK_INOTIFY, FL_LACK_DESCRIPTORS,    FL_LACK_IMAGES,  FL_LACK_OBSERVE,
        FL_LACK_METRICS, FL_LACK_RUNNING_KEEPER,
    };
    for (size_t i = 0; i < sizeof(found_again) / sizeof(found_again[0]); i++) {
        if (*degraded->reason[found_again[i]])
            return true;
    }
    return false;
}

// Grows with every VM that comes or goes, or is refused.
static uint64_t count_events(const struct fl_server *server)
{
    const struct fl_engine_counts *counts = server->engine->counts;
    const struct fl_ends *ends = &counts->ends;
    return counts->attached + counts->refused + ends->released + ends->poisoned + ends->killed;
}

static bool is_stirring(const struct fl_server *server)
{
    return count_events(server) != server->looked.events ||
           server->engine->vms.count != server->looked.vms ||
           server->acceptor.connection_count > 0 || is_searching(&server->engine->degraded) ||
           fl_store_watch_stirs(server->watch);
}

static void look_at_all(struct fl_server *server)
{
    fl_totals_note(server->engine);
    look_at_keeper(server);
    fl_engine_look(server->engine);
    look_at_control(server);
    look_at_keeper_socket(server);
    fl_store_watch_look(server->watch);
    if (fl_service_refuses(server->acceptor.state))
        return;
    fl_room_look(&server->acceptor);
    if (!server->acceptor.shut)
        fl_listeners_look(&server->acceptor);
    fl_templates_look(server->engine->templates);
}

void fl_upkeep_run(struct fl_server *server, uint64_t now)
{
    uint64_t due = fl_upkeep_next_due(server);
    if (due == FL_NEVER || now + (server->looked.seldom ? SOON : 0) < due)
        return;
    if (server->looked.at_ns == 0 || is_stirring(server))
        fl_pace_news(&server->looked.pace, now);
    look_at_all(server);
    server->looked.at_ns = now;
    server->looked.events = count_events(server);
    server->looked.vms = server->engine->vms.count;
    server->looked.seldom = fl_pace_is_calm(&server->looked.pace, now);
}

uint64_t fl_upkeep_next_due(const struct fl_server *server)
{
    bool looks = !server->failed && fl_service_has_begun(server->acceptor.state);
    if (!looks || !server->acceptor.place)
        return FL_NEVER;
    bool seldom = server->looked.seldom && !is_stirring(server);
    return server->looked.at_ns + (seldom ? SELDOM : FL_PACE_OFTEN);
}
