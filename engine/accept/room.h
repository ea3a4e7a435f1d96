// SPDX-License-Identifier: Apache-2.0
//
// Whether there are descriptors for what clients bring; and no socket to connect to while there are
// not. Control thread.
#ifndef FAULTLINE_ACCEPT_ROOM_H
#define FAULTLINE_ACCEPT_ROOM_H

#include <stdbool.h>

struct fl_acceptor;

// True if there are descriptors for so many more VMs; for another socket of an image; for one more
// handshake that is refused.
bool fl_room_for_vms(const struct fl_acceptor *acceptor, unsigned vms);
bool fl_room_to_listen(const struct fl_acceptor *acceptor);
bool fl_room_to_refuse(const struct fl_acceptor *acceptor);
// For want of descriptors: the kernel tells clients that connect from now on.
void fl_room_shut(struct fl_acceptor *acceptor);
// Whether that is to begin or to end: once in a while, and whenever a VM has taken its descriptors.
void fl_room_look(struct fl_acceptor *acceptor);

#endif
