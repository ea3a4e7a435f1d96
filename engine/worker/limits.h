// SPDX-License-Identifier: Apache-2.0
//
// Which VMs are slowed down by a memory limit: a thread of its own looks at those that pages were
// filled for, twice a second. One whose limit was met since the last time is to have a lane
// (lane.h). What it has seen stands in the status.
#ifndef FAULTLINE_WORKER_LIMITS_H
#define FAULTLINE_WORKER_LIMITS_H

struct fl_engine;
struct fl_limits;

// Control thread.
int fl_limits_start(struct fl_engine *engine, struct fl_limits **ret_limits);
void fl_limits_stop(struct fl_limits *limits);

#endif
