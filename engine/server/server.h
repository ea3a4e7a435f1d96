// SPDX-License-Identifier: Apache-2.0
//
// The control thread: it accepts handshakes, makes VMs of them, follows the store, answers the
// control API, and ends it all. Everything here belongs to that one thread.
#ifndef FAULTLINE_SERVER_SERVER_H
#define FAULTLINE_SERVER_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/accept/acceptor.h"
#include "engine/base/loop.h"
#include "engine/base/unix_socket.h"
#include "engine/link/inherited_sockets.h"
#include "engine/takeover/takeover.h"
#include "engine/worker/engine.h"
#include "snapshot/error.h"

struct fl_control;
struct fl_keeper_socket;
struct fl_heartbeat;

struct fl_server_options {
    struct fl_engine_options engine;
    // Either a store, with a directory for one socket an image and a control socket ...
    const char *store;
    const char *sockets;
    const char *control;
    // ... or one raw memory file and one socket.
    const char *raw_file;
    const char *raw_socket;
    struct fl_socket_access access; // of the images' sockets
    int channel;                    // to the keeper; -1: without one
};

// What fl_server_run() returns when it has ended as it was told to, and not every VM has what it
// needs to go on.
enum { FL_SERVER_INCOMPLETE = 1 };

// Serves until SIGTERM, SIGINT or SIGHUP, then until no VM needs it any more. 0;
// FL_SERVER_INCOMPLETE with the sentence that says what VMs miss; -errno with the one that says why
// it could not start.
int fl_server_run(const struct fl_server_options *options, struct fl_error *ret_error);

// --- for the parts of the control thread ---

struct fl_server {
    const struct fl_server_options *options;
    struct fl_engine *engine;
    struct fl_loop loop;
    struct fl_acceptor acceptor;
    struct fl_control *control;
    struct fl_takeover takeover;
    struct fl_keeper_socket *keeper_socket;
    struct fl_heartbeat *heartbeat;
    struct fl_inherited_sockets sockets;
    uint64_t look_ns; // of upkeep.c: when to look next
};

// What the keeper says (channel.h).
void fl_server_serve(struct fl_server *server, uint64_t generation);
void fl_server_stop(struct fl_server *server, uint64_t timeout_ms);
void fl_server_yield(struct fl_server *server);
// `outside`: a service manager has all that the keeper had, and starts the service again.
void fl_server_keeper_lost(struct fl_server *server, bool outside);

#endif
