// SPDX-License-Identifier: Apache-2.0
//
// From a handshake that was looked at to a VM, or to a refusal: does it fit the image, is there
// room for it, is it served already. Control thread; these may settle the connection.
#ifndef FAULTLINE_ACCEPT_CONNECTION_ATTACH_H
#define FAULTLINE_ACCEPT_CONNECTION_ATTACH_H

struct fl_connection;

// Its image was opened (connection->opened) or could not be.
void fl_connection_use_image(struct fl_connection *connection);
// It gets the template's image, whatever the name stands for by now, as soon as that is open.
void fl_connection_use_template(struct fl_connection *connection);
// It is refused, and its image, if there is one, not used.
void fl_connection_refuse_opened(struct fl_connection *connection, const char *reason);

#endif
