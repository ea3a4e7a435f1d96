// SPDX-License-Identifier: Apache-2.0
//
// What accept/ works on: the listening sockets of a server and the connections that came from them,
// and what it needs of the rest. Control thread; a reader may see what is constant.
#ifndef FAULTLINE_ACCEPT_ACCEPTOR_H
#define FAULTLINE_ACCEPT_ACCEPTOR_H

#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/accept/service_state.h"
#include "engine/base/unix_socket.h"
#include "engine/worker/engine.h"

struct fl_image;
struct fl_inherited_sockets;
struct fl_loop;
struct fl_store_place;

// Embedded in the server, which fills in what is constant before a function of accept/ is called.
struct fl_acceptor {
    // Constant:
    struct fl_engine *engine;
    struct fl_loop *loop;
    struct fl_inherited_sockets *sockets;
    const char *store;              // the path of the store, as it was given; NULL: one raw file
    struct fl_store_place *place;   // the same, looked at; NULL likewise
    struct fl_image *raw;           // the raw file; NULL: a store
    const char *directory;          // of the sockets of the store's images
    struct fl_socket_access access; // of those sockets, and of others by default

    enum fl_service_state state;      // changed by drain.c alone
    struct cds_list_head listeners;   // struct fl_listener
    struct cds_list_head connections; // struct fl_connection
    unsigned connection_count;
    uint64_t accept_again_ns;   // accepting is paused until then; 0: it is not
    bool shut;                  // for want of descriptors: no path leads to a listener
    struct fl_ends ends_before; // of the engine, when VMs began to be let go
};

#endif
