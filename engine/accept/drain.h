// SPDX-License-Identifier: Apache-2.0
//
// From a server that takes VMs to one that does not (service_state.h): there is no way back, and a
// successor goes on with it. Control thread.
#ifndef FAULTLINE_ACCEPT_DRAIN_H
#define FAULTLINE_ACCEPT_DRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/accept/service_state.h"

struct fl_acceptor;

// A standby begins to serve, where its predecessor was: mode, FL_MODE_*. False, and nothing is
// changed, if it serves already.
bool fl_drain_begin(struct fl_acceptor *acceptor, uint64_t mode);
// No new VM from now on: all listening sockets go. `to`: REFUSING or more; nothing is taken back if
// the server is there already. To let go of VMs (fl_release_all()) is the caller's.
void fl_drain(struct fl_acceptor *acceptor, enum fl_service_state to);
// There is neither VM nor connection, and no keeper: the server ends.
void fl_drain_end(struct fl_acceptor *acceptor);
// Has a new keeper know of it.
void fl_drain_keep_mode(const struct fl_acceptor *acceptor);

#endif
