// SPDX-License-Identifier: Apache-2.0
//
// A server from its start to its end: what server.c and server_start.c share. Control thread only.
#ifndef FAULTLINE_SERVER_SERVER_INTERNAL_H
#define FAULTLINE_SERVER_SERVER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/accept/acceptor.h"
#include "engine/base/loop.h"
#include "engine/base/pace.h"
#include "engine/link/inherited_sockets.h"
#include "engine/takeover/takeover.h"

struct fl_control;
struct fl_error;
struct fl_heartbeat;
struct fl_keeper_socket;
struct fl_ledger;
struct fl_server_options;
struct fl_store_watch;

// The end: VMs are filled and let go; those that this takes too long for are killed.
struct fl_stop {
    uint64_t kill_ns;  // FL_NEVER until asked to stop
    uint64_t again_ns; // orders are repeated: a VM may have been on its way to a worker
    bool killing;
    bool signalled; // a signal has asked for it
};

// The control thread owns all of it.
struct fl_server {
    const struct fl_server_options *options;
    struct fl_engine *engine;
    struct fl_ledger *ledger; // that it counts in
    struct fl_loop loop;
    struct fl_inherited_sockets sockets;
    struct fl_acceptor acceptor; // with the state of the server (service_state.h)
    struct fl_takeover takeover;
    struct fl_source signals;
    struct fl_source mail; // to the control thread
    // NULL until they have started:
    struct fl_heartbeat *heartbeat;
    struct fl_control_options api; // with all places
    struct fl_control *control;
    struct fl_keeper_socket *keeper_socket;
    struct fl_store_watch *watch;

    struct fl_stop stop;
    struct {            // of upkeep.c: the last look, and how things were then
        uint64_t at_ns; // 0: there was none
        struct fl_pace pace;
        uint64_t events;
        unsigned vms;
        bool seldom; // the next one is far away
    } looked;
    uint64_t lonely_ns;     // with neither keeper nor VM: when to end; FL_NEVER
    bool keeper_lost;       // and nothing was done about it yet
    bool failed;            // could not begin to serve
    struct fl_error *error; // why it cannot start
};

// All but what makes it be found by others; -errno with the sentence that says why not.
int fl_server_start(struct fl_server *server, struct fl_error *ret_error);
// What a standby does not do yet: be found by others. `first`: no VM depends on it, and what it
// cannot have is an error. Else it does without, for as long as it must (degraded.h).
int fl_server_open_doors(struct fl_server *server, bool first, struct fl_error *ret_error);

// --- server.c: orders of the keeper ---

// All records have come: it serves from now on.
void fl_server_serve(struct fl_server *server, uint64_t generation);
// No new VM; those that there are, are filled and let go, or killed after so long.
void fl_server_stop(struct fl_server *server, uint64_t timeout_ms);
// Another engine goes on. Does not return.
void fl_server_yield(struct fl_server *server);
// `outside`: a service manager has all that the keeper had, and starts the service again.
void fl_server_keeper_lost(struct fl_server *server, bool outside);

// upcalls.c: the engine's link to its keeper, its templates, and the control API, which call back.
int fl_server_start_keeper_link(struct fl_server *server);
int fl_server_start_templates(struct fl_server *server);
// No file can be read before the server serves.
int fl_server_start_files(struct fl_server *server);
// No door of the control API is open yet.
int fl_server_start_control(struct fl_server *server);

// upkeep.c: once a second, or seldom, whether what a server needs to be found is still there.
void fl_upkeep_run(struct fl_server *server, uint64_t now);
uint64_t fl_upkeep_next_due(const struct fl_server *server);
// All that was started.
void fl_server_end(struct fl_server *server);

#endif
