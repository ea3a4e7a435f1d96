// SPDX-License-Identifier: Apache-2.0
//
// Which VMs are slowed down by a memory limit: a thread of its own looks at those that pages were
// filled for, twice a second for as long as any are. One whose limit was met since the last time is to have a lane
// (lane.h). What it has seen stands in the status.
#ifndef FAULTLINE_WORKER_LIMIT_WATCH_H
#define FAULTLINE_WORKER_LIMIT_WATCH_H

struct fl_engine;
struct fl_limit_watch;

// Control thread.
int fl_limit_watch_start(struct fl_engine *engine, struct fl_limit_watch **ret_limits);
void fl_limit_watch_stop(struct fl_limit_watch *limits);

#endif
