// SPDX-License-Identifier: Apache-2.0
//
// The engine's heartbeat: asked by the keeper, each worker answers in its loop, and when all have,
// the keeper is answered. Control thread.
#ifndef FAULTLINE_TAKEOVER_HEARTBEAT_H
#define FAULTLINE_TAKEOVER_HEARTBEAT_H

#include <stdint.h>

struct fl_server;

void fl_heartbeat_take(struct fl_server *server);
// A thread that has not answered may have come to be held up by the kernel since.
void fl_heartbeat_run(struct fl_server *server, uint64_t now);
uint64_t fl_heartbeat_next_due(const struct fl_server *server);

#endif
