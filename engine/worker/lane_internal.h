// SPDX-License-Identifier: Apache-2.0
//
// Between lane.c (what becomes of VMs, threads and lanes) and lane_watch.c (which sees that a call
// takes long).
#ifndef FAULTLINE_WORKER_LANE_INTERNAL_H
#define FAULTLINE_WORKER_LANE_INTERNAL_H

#include <stdbool.h>

struct fl_lanes;
struct fl_mail;
struct fl_worker;

// Any thread. A lane that was free and is not any more; NULL if none is.
struct fl_worker *fl_lane_take(struct fl_lanes *lanes);
bool fl_lanes_any_free(const struct fl_lanes *lanes);
// The mail by which a lane is told to go on with another worker.
void fl_lane_ordered(void *owner, struct fl_mail *mail);

#endif
