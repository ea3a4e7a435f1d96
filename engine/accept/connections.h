// SPDX-License-Identifier: Apache-2.0
//
// The connections of an acceptor: one begins, those that a predecessor had are taken over, those
// whose time is up are settled. Control thread.
#ifndef FAULTLINE_ACCEPT_CONNECTIONS_H
#define FAULTLINE_ACCEPT_CONNECTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/link/channel.h"

struct fl_acceptor;
struct fl_listener;
struct fl_template;

// A client has connected to the listener. Takes the socket. `record`: the keeper's of it, 0: none.
// `doomed`: why it is refused when its handshake is complete; NULL: it is not.
void fl_connections_add(struct fl_listener *listener, int socket, uint64_t record,
                        const char *doomed);
// From a predecessor: the socket, with all that has been sent in it, and the listener's
// description.
void fl_connections_adopt(struct fl_acceptor *acceptor, uint64_t record, int fds[FL_CHANNEL_FDS]);
// Has a new keeper hold them all.
void fl_connections_keep(struct fl_acceptor *acceptor);
// The template was looked at: those that wait for it go on, or are refused, with an error.
void fl_connections_template_ready(struct fl_acceptor *acceptor, struct fl_template *template,
                                   int error);
// Refuses those whose time is up (all that have not said what they want, if the server refuses new
// VMs).
void fl_connections_expire(struct fl_acceptor *acceptor, uint64_t now);
// Makes room: settles the one that has been silent for longest. False if none is silent.
bool fl_connections_drop_oldest(struct fl_acceptor *acceptor);
// When the first will have to be refused; FL_NEVER if none.
uint64_t fl_connections_next_due(const struct fl_acceptor *acceptor);

#endif
