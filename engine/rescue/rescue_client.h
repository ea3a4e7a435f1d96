// SPDX-License-Identifier: Apache-2.0
//
// Bringing a VM that its handler has left behind to a server that runs (keeper_socket.h is the
// other end).
#ifndef FAULTLINE_RESCUE_RESCUE_CLIENT_H
#define FAULTLINE_RESCUE_RESCUE_CLIENT_H

#include <stdbool.h>

#include "snapshot/error.h"

struct fl_rescue_request {
    int state_fd; // vm_state.h; an empty image name: every fault is poisoned
    int uffd;
    int pidfd; // -1: none
    bool kill; // kill it, and answer its faults until it is gone
};

// Asks whether fl_rescue_send() would be refused, and hands nothing over. As that; also -ECONNRESET
// by a server of a version that cannot be asked.
int fl_rescue_ask(const char *control_path, const struct fl_rescue_request *request,
                  struct fl_error *ret_error);

// Waits until the server serves it. The caller keeps its descriptors. -ENOTCONN if no server
// listens there, -ETIMEDOUT, or what the server says; with a sentence.
int fl_rescue_send(const char *control_path, const struct fl_rescue_request *request,
                   struct fl_error *ret_error);

#endif
