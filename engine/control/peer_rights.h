// SPDX-License-Identifier: Apache-2.0
//
// Who may give orders. The mode of a socket's file says who may connect, and so who may read; who
// may order is decided by the credentials with which the peer connected (SO_PEERCRED), since a
// directory, a mount or a descriptor that is handed on can lead past the mode. Control thread.
#ifndef FAULTLINE_CONTROL_PEER_RIGHTS_H
#define FAULTLINE_CONTROL_PEER_RIGHTS_H

#include <stdbool.h>
#include <sys/types.h>

struct fl_control_options;

// A peer of the control socket: root, the server's own user, the user of --control-owner, and with
// --control-orders group also who is in the group of the socket. *ret_uid is who it is, for the
// sentence; (uid_t)-1: that is not known, and then it may not.
bool fl_peer_may_order(int socket, const struct fl_control_options *options, uid_t *ret_uid);

#endif
