// SPDX-License-Identifier: Apache-2.0
//
// The control thread: it accepts handshakes, makes VMs of them, follows the store, answers the
// control API, and ends it all. Everything here belongs to that one thread.
#ifndef FAULTLINE_ENGINE_SERVER_H
#define FAULTLINE_ENGINE_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/engine.h"
#include "engine/unix_socket.h"

struct fl_control;
struct fl_image;
struct fl_images;
struct fl_reader;

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
};

// Serves until SIGTERM, SIGINT or SIGHUP, then until no VM needs it any more. 0, or -errno with the
// sentence that says why it could not start.
int fl_server_run(const struct fl_server_options *options, char *ret_reason, size_t size);

// --- for the parts of the control thread ---

// A descriptor in the control thread's epoll. It may be freed in its own `ready` only.
struct fl_source {
    int fd;
    void (*ready)(struct fl_source *source, uint32_t events);
};

struct fl_server {
    const struct fl_server_options *options;
    struct fl_engine *engine;
    int epoll_fd;
    struct fl_reader *reader;
    struct fl_image *raw;
    struct fl_control *control;
    struct cds_list_head listeners;
    struct cds_list_head connections;
    unsigned connection_count;
    uint64_t accept_again_ns; // out of descriptors: when to accept again; 0: accepting
    bool refusing;            // no new VM: draining or stopping
    bool releasing;           // VMs are filled and let go
    bool stopping;            // ends when there is no VM left
};

// No new VM from now on; with `release`, those there are filled and let go. Cannot be taken back.
void fl_server_drain(struct fl_server *server, bool release);

int fl_server_watch(struct fl_server *server, struct fl_source *source, uint32_t events);
void fl_server_unwatch(struct fl_server *server, struct fl_source *source);

#endif
