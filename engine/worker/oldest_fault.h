// SPDX-License-Identifier: Apache-2.0
//
// How long the oldest fault has waited that has no answer yet: of all that are parked, that a
// worker is acting on, or that lie unread before a worker that is stuck. No thread is asked for it,
// so it is true at the moment of the question even if no worker answers any more.
#ifndef FAULTLINE_WORKER_OLDEST_FAULT_H
#define FAULTLINE_WORKER_OLDEST_FAULT_H

#include <stdint.h>

struct fl_engine;

// Control thread; never waits. In ns; 0: none waits. A parked fault is seen a quarter of a second
// after it was read at the latest.
uint64_t fl_oldest_fault(const struct fl_engine *engine);

#endif
