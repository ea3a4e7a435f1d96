// SPDX-License-Identifier: Apache-2.0
//
// The engine's heartbeat: asked by the keeper, each worker answers in its loop, and when all have,
// the keeper is answered. Control thread.
#ifndef FAULTLINE_ENGINE_PULSE_H
#define FAULTLINE_ENGINE_PULSE_H

struct fl_server;

void fl_pulse_take(struct fl_server *server);

#endif
