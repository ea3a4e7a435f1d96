// SPDX-License-Identifier: Apache-2.0
//
// Reading what a connection wants: a text and a userfaultfd. Control thread.
#ifndef FAULTLINE_ACCEPT_CONNECTION_HANDSHAKE_H
#define FAULTLINE_ACCEPT_CONNECTION_HANDSHAKE_H

#include <stdbool.h>

struct fl_connection;

// Reads from now on whatever comes; 0 or -errno.
int fl_connection_watch(struct fl_connection *connection);
// Reads what is there. True if the handshake is complete or the connection is settled (and perhaps
// freed).
bool fl_connection_receive(struct fl_connection *connection);
// There was no room for its descriptor, which is still in the socket: looks again. Returns
// likewise.
bool fl_connection_retry(struct fl_connection *connection);
// Nothing more comes from it: settles it.
void fl_connection_ended(struct fl_connection *connection);

#endif
