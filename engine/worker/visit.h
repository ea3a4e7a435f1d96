// SPDX-License-Identifier: Apache-2.0
//
// Which VM a worker serves next, and for how long. Owner only.
#ifndef FAULTLINE_WORKER_VISIT_H
#define FAULTLINE_WORKER_VISIT_H

#include <stdbool.h>

struct fl_worker;

// Visits hot VMs, for half a millisecond and one visit more at most. True if any had messages.
bool fl_visit_hot(struct fl_worker *worker);

#endif
