// SPDX-License-Identifier: Apache-2.0
//
// One connection, from accept() to a VM or a refusal. Control thread only; never waits.
#ifndef FAULTLINE_ACCEPT_CONNECTION_H
#define FAULTLINE_ACCEPT_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/accept/acceptor.h"
#include "engine/link/channel.h"
#include "engine/link/endpoint_memfd.h"

struct fl_template;

// Takes the socket. `record`: the keeper's of it, 0: none. `doomed`: why it is refused when its
// handshake is complete; NULL: it is not.
void fl_connection_new(struct fl_acceptor *acceptor, const char *image, enum fl_policy policy,
                       enum fl_purpose purpose, int socket, uint64_t record, const char *doomed);
// Those that wait for it go on, or are refused.
void fl_connections_template_ready(struct fl_acceptor *acceptor, struct fl_template *template,
                                   int error);
// From a predecessor: the socket, with all that has been sent in it, and the listener's
// description.
void fl_connection_adopt(struct fl_acceptor *acceptor, uint64_t record, int fds[FL_CHANNEL_FDS]);
// Has a new keeper hold them all.
void fl_connections_keep(struct fl_acceptor *acceptor);
// Refuses those whose time is up (all that have not said what they want, if the server refuses new
// VMs).
void fl_connections_expire(struct fl_acceptor *acceptor, uint64_t now);
// Makes room: settles the one that has been silent for longest. False if none is silent.
bool fl_connections_drop_oldest(struct fl_acceptor *acceptor);
// When the first will have to be refused; FL_NEVER if none.
uint64_t fl_connections_next_due(struct fl_acceptor *acceptor);

#endif
