// SPDX-License-Identifier: Apache-2.0
//
// Accepting connections from listeners, and not accepting where there is no room for what they
// bring. Control thread.
#ifndef FAULTLINE_ACCEPT_ACCEPT_H
#define FAULTLINE_ACCEPT_ACCEPT_H

#include <stdbool.h>
#include <stdint.h>

struct fl_acceptor;
struct fl_listener;
struct fl_source;

// Its socket is readable.
void fl_accept_ready(struct fl_source *source, uint32_t events);
// True if there are descriptors for so many more VMs; for another socket of an image.
bool fl_accept_has_room(const struct fl_acceptor *acceptor, unsigned vms);
bool fl_accept_has_room_to_listen(const struct fl_acceptor *acceptor);
// For want of descriptors: the kernel tells clients that connect from now on.
void fl_listeners_shut(struct fl_acceptor *acceptor);
// Whether that is to begin or to end, once in a while.
void fl_listeners_look_for_room(struct fl_acceptor *acceptor);
// All that wait, or as many as there is room for.
void fl_accept_all(struct fl_listener *listener);

// Stop accepting for a moment, and go on.
void fl_listeners_pause(struct fl_acceptor *acceptor);
void fl_listeners_resume(struct fl_acceptor *acceptor);

#endif
