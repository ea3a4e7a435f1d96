// SPDX-License-Identifier: Apache-2.0
//
// The way to a handler: its socket, and Firecracker's handshake, which hands it a userfaultfd with
// the client's memory.
#ifndef FAULTLINE_CLIENT_HANDSHAKE_H
#define FAULTLINE_CLIENT_HANDSHAKE_H

#include <stdint.h>

#include "client/client.h"

enum { FL_CLIENT_ANSWER_SECONDS = 10 }; // how long a handler may be busy

// Connects to a handler's socket, at a path of any length. The descriptor, or -errno; -ETIMEDOUT
// after FL_CLIENT_ANSWER_SECONDS.
int fl_client_connect(const char *path);
// Opens a userfaultfd, registers the client's memory with it, and sends the handshake over the
// client's socket, which is open. 0 or -errno; the client keeps what is open by then.
int fl_client_attach(struct fl_client *client, uint32_t page_bytes);

#endif
