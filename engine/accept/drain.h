// SPDX-License-Identifier: Apache-2.0
//
// How a server stops to take VMs. It cannot be taken back, and a successor goes on with it. Control
// thread.
#ifndef FAULTLINE_ACCEPT_DRAIN_H
#define FAULTLINE_ACCEPT_DRAIN_H

#include <stdbool.h>

struct fl_acceptor;

// No new VM from now on: all listening sockets go. With `release` the VMs that there are shall be
// filled and let go, which the caller does (fl_release_all()).
void fl_drain(struct fl_acceptor *acceptor, bool release);
// Has a new keeper know of it.
void fl_drain_keep_mode(const struct fl_acceptor *acceptor);

#endif
