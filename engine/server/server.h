// SPDX-License-Identifier: Apache-2.0
//
// The control thread: it accepts handshakes, makes VMs of them, follows the store, answers the
// control API, and ends it all. Everything here belongs to that one thread.
#ifndef FAULTLINE_SERVER_SERVER_H
#define FAULTLINE_SERVER_SERVER_H

#include "engine/base/call_filter.h"
#include "engine/base/log_level.h"
#include "engine/base/unix_socket.h"
#include "engine/control/control_options.h"
#include "engine/worker/engine.h"
#include "snapshot/error.h"

struct fl_server_options {
    struct fl_engine_options engine;
    // Either a store, with a directory for one socket an image and a control socket ...
    const char *store;
    const char *sockets;
    const char *control;
    const char *files; // where the keeper mounts the images as files; NULL: nowhere
    struct fl_control_options api; // but for the place of the control socket, which is `control`
    // ... or one raw memory file and one socket.
    const char *raw_file;
    const char *raw_socket;
    struct fl_socket_access access; // of the images' sockets
    int channel;                    // to the keeper; -1: without one
    struct fl_call_filter_options filter;
    enum fl_log_level log_level; // what is logged: this, and what matters more
};

// What fl_server_run() returns when it has ended as it was told to, and not every VM has what it
// needs to go on.
enum { FL_SERVER_INCOMPLETE = 1 };

// Serves until SIGTERM, SIGINT or SIGHUP, then until no VM needs it any more. 0;
// FL_SERVER_INCOMPLETE with the sentence that says what VMs miss; -errno with the one that says why
// it could not start.
int fl_server_run(const struct fl_server_options *options, struct fl_error *ret_error);

#endif
