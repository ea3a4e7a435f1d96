// SPDX-License-Identifier: Apache-2.0
//
// A socket at which an image is had. Control thread.
#ifndef FAULTLINE_ACCEPT_LISTENER_H
#define FAULTLINE_ACCEPT_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/base/loop.h"
#include "engine/base/unix_socket.h"
#include "engine/link/endpoint_memfd.h"
#include "engine/vm/choices.h"

struct fl_acceptor;

struct fl_listener {
    struct fl_source source;
    struct cds_list_head link;
    struct fl_acceptor *acceptor;
    struct fl_listening listening;
    uint64_t id;               // of the keeper's record
    struct fl_choices choices; // of its VMs
    enum fl_purpose purpose;
    char *image;
    char *path;
    struct fl_socket_access access;
    uint64_t accepting; // the record of an attempt to accept that is to be repeated; 0: none
    bool away;          // its socket was removed, and could not be made again so far
    bool automatic;     // made for an image of the store, and not asked for
    bool adopted;       // from a predecessor, and its owner was not looked at yet
    bool seen;          // mark of fl_listeners_follow()
};

#endif
