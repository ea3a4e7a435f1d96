// SPDX-License-Identifier: Apache-2.0
//
// Where an engine can be reached by a new keeper, after its own was killed, by `faultline rescue`,
// which brings VMs that their handler left behind, and by those that have a VM captured:
// CONTROL.keeper, for its owner and root.
// Control thread.
#ifndef FAULTLINE_TAKEOVER_KEEPER_SOCKET_H
#define FAULTLINE_TAKEOVER_KEEPER_SOCKET_H

#include <stdbool.h>

#include "snapshot/error.h"

struct fl_keeper_socket;
struct fl_takeover;

int fl_keeper_socket_start(struct fl_takeover *takeover, const char *control,
                           struct fl_keeper_socket **ret_socket, struct fl_error *ret_error);
// Once a second: accepts again what it had no descriptor for. False if its path does not lead to it
// any more.
bool fl_keeper_socket_look(struct fl_keeper_socket *socket);
void fl_keeper_socket_stop(struct fl_keeper_socket *socket); // NULL is allowed

#endif
