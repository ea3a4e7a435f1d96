// SPDX-License-Identifier: Apache-2.0
//
// Clients of a template's socket: one is greeted with its memory, waits until it is ready, or is
// turned away. Control thread; each may settle the connection.
#ifndef FAULTLINE_ACCEPT_CONNECTION_TEMPLATE_H
#define FAULTLINE_ACCEPT_CONNECTION_TEMPLATE_H

struct fl_connection;

// It is new, and for a template.
void fl_connection_offer_template(struct fl_connection *connection);
// Its template was checked, or is open; or neither can be done (error; -ECANCELED is none).
void fl_connection_template_ready(struct fl_connection *connection, int error);
// Refuses it, however far it is: a client that nothing was sent to yet is told at once, one that
// has spoken when all of it is read.
void fl_connection_turn_away(struct fl_connection *connection, const char *reason);

#endif
