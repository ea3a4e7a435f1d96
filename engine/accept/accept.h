// SPDX-License-Identifier: Apache-2.0
//
// Accepting connections from listeners, and not accepting where there is no room for what they
// bring. Control thread.
#ifndef FAULTLINE_ACCEPT_ACCEPT_H
#define FAULTLINE_ACCEPT_ACCEPT_H

#include <stdint.h>

struct fl_acceptor;
struct fl_listener;
struct fl_source;

// Its socket is readable.
void fl_accept_ready(struct fl_source *source, uint32_t events);
// All that wait, or as many as there is room for.
void fl_accept_all(struct fl_listener *listener);

// Stop accepting for a moment, and go on.
void fl_listeners_pause(struct fl_acceptor *acceptor);
void fl_listeners_resume(struct fl_acceptor *acceptor);

#endif
