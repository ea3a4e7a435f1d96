// SPDX-License-Identifier: Apache-2.0
//
// What the control API is told when it starts: its doors, who may use them, and what it has the
// rooms above it do.
#ifndef FAULTLINE_CONTROL_CONTROL_OPTIONS_H
#define FAULTLINE_CONTROL_CONTROL_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/unix_socket.h"

enum fl_door_kind { FL_DOOR_CONTROL, FL_DOOR_OBSERVE, FL_DOOR_METRICS, FL_DOORS };

// What an operator chooses. All of it outlives the control API.
struct fl_control_options {
    // By enum fl_door_kind; NULL: there is none. That of the metrics may be ADDRESS:PORT (a path
    // has a slash).
    const char *place[FL_DOORS];
    struct fl_socket_access control_access;
    struct fl_socket_access observe_access; // of the other two, as far as they are files
    bool group_orders;                      // the group of the control socket may order, too
    uint64_t hang_ms;                       // an engine that is silent for so long hangs
};

// What the control API has the rooms above it do.
struct fl_control_ops {
    // Someone asks whether workers live: asks them for a sign of it if the last is old
    // (heartbeat.h).
    void (*ask_workers)(void *arg);
    void *arg;
};

#endif
