// SPDX-License-Identifier: Apache-2.0
//
// Connects to a handler, and sends Firecracker's handshake, which hands the handler a userfaultfd
// for the client's memory.
#ifndef FAULTLINE_CLIENT_HANDSHAKE_H
#define FAULTLINE_CLIENT_HANDSHAKE_H

#include <stdint.h>

#include "client/client.h"

enum { FL_CLIENT_ANSWER_SECONDS = 10 }; // how long a call waits for a busy handler

// Connects to a handler's socket at a path of any length. Returns the descriptor, which the caller
// owns, or -errno; -ETIMEDOUT after FL_CLIENT_ANSWER_SECONDS.
int fl_client_connect(const char *path);
// Opens a userfaultfd, registers the client's memory with it, and sends the handshake over the
// client's socket, which must be open. Returns 0 or -errno. The client owns the userfaultfd in both
// cases, as soon as it is open.
int fl_client_attach(struct fl_client *client);

#endif
