// SPDX-License-Identifier: Apache-2.0
//
// The engine's heartbeat: asked by the keeper, each worker answers in its loop, and when all have,
// the keeper is answered. Control thread.
#ifndef FAULTLINE_TAKEOVER_HEARTBEAT_H
#define FAULTLINE_TAKEOVER_HEARTBEAT_H

#include <stdint.h>

struct fl_engine;
struct fl_heartbeat;

// NULL without memory.
struct fl_heartbeat *fl_heartbeat_new(struct fl_engine *engine);
// After the engine's workers have ended: until then a beat may be on its way. NULL is a no-op.
void fl_heartbeat_free(struct fl_heartbeat *heartbeat);

// The keeper asks.
void fl_heartbeat_take(struct fl_heartbeat *heartbeat);
// Someone asks whether the server lives, and is answered by what is known: if that is old, the
// threads are asked for the next one who does. From the first on those that sleep are asked, too.
void fl_heartbeat_probe(struct fl_heartbeat *heartbeat);
// A thread that has not answered may have come to be held up by the kernel since. NULL is a no-op.
void fl_heartbeat_run(struct fl_heartbeat *heartbeat, uint64_t now);
// When to call fl_heartbeat_run(); FL_NEVER, also for NULL.
uint64_t fl_heartbeat_next_due(const struct fl_heartbeat *heartbeat);

#endif
