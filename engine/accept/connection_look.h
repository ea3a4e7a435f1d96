// SPDX-License-Identifier: Apache-2.0
//
// A handshake that is complete: which process is behind it, and is it true what it says of
// memory? Control
// thread; a reader does the looking.
#ifndef FAULTLINE_ACCEPT_CONNECTION_LOOK_H
#define FAULTLINE_ACCEPT_CONNECTION_LOOK_H

struct fl_connection;

// Has a reader look, and open its image; then the connection becomes a VM (connection_attach.h).
void fl_connection_look(struct fl_connection *connection);

#endif
