// SPDX-License-Identifier: Apache-2.0
//
// A door of the control API: a socket that listens, the clients that have come by it, and what they
// may ask. Control thread only.
//
// libmicrohttpd has no thread here: each door is one of its daemons, whose epoll descriptor is a
// source of the control thread's loop. A door at which others than the operator knock may take a
// fifth of the control thread's time at most: after a long turn it is left alone for four times as
// long, so that clients which ask without end keep no VM waiting. All who ask for the status there
// in one turn get the same, so that many do not make the turn long. One that can accept no client,
// as no file can be opened, is left alone for a moment.
#ifndef FAULTLINE_CONTROL_DOOR_H
#define FAULTLINE_CONTROL_DOOR_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/base/loop.h"
#include "engine/base/tcp_socket.h"
#include "engine/base/unix_socket.h"
#include "engine/control/control_clients.h"
#include "engine/control/control_options.h"
#include "engine/control/health.h"
#include "engine/control/routes.h"

struct fl_acceptor;
struct fl_checkpoints;
struct fl_error;

struct fl_door {
    struct fl_source source; // libmicrohttpd's epoll descriptor
    struct fl_acceptor *acceptor;
    struct fl_health *health;
    struct fl_checkpoints *checkpoints;
    const struct fl_control_options *options;
    enum fl_door_kind kind;
    bool is_tcp;
    struct fl_tcp_address address;
    struct fl_listening listening; // fd -1: it is shut
    struct MHD_Daemon *daemon;     // NULL likewise, or if it could not be started
    struct fl_control_clients clients;
    // Answers of the turn that goes on.
    struct MHD_Response *shared[FL_SHARED_ANSWERS];

    bool ready;      // a client has said something
    bool resting;    // the source is not watched
    bool complained; // libmicrohttpd has, in its last turn
    bool lacks;      // files that can be opened: told once
    uint64_t due_ns; // when libmicrohttpd has something to do, or the rest is over
};

void fl_door_init(struct fl_door *door, struct fl_acceptor *acceptor, struct fl_health *health,
                  struct fl_checkpoints *checkpoints, enum fl_door_kind kind,
                  const struct fl_control_options *options);
// As fl_control_look().
int fl_door_look(struct fl_door *door, struct fl_error *ret_error);
// Removes the socket's file, too. One that is shut is allowed, here and below.
void fl_door_shut(struct fl_door *door);
void fl_door_run(struct fl_door *door, uint64_t now);
uint64_t fl_door_next_due(const struct fl_door *door);

#endif
