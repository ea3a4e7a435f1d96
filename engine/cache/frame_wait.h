// SPDX-License-Identifier: Apache-2.0
//
// The waiters of a LOADING frame, and the end of its loading, at which each of them gets it.
#ifndef FAULTLINE_CACHE_FRAME_WAIT_H
#define FAULTLINE_CACHE_FRAME_WAIT_H

#include <stdbool.h>

#include "engine/cache/frame_table.h"

// RCU reader, never blocks: false if the frame is READY or FAILED already. Else the waiter will be
// delivered.
bool fl_frame_leave_waiter(struct fl_frame *frame, struct fl_waiter *waiter);
// Pool or read-ahead thread, RCU offline: the end of a LOADING frame, READY or, with an error,
// FAILED and out of the table; `failed` is what could not be read, if it is known. Delivers to all
// waiters.
void fl_frame_finish(struct fl_frame *frame, int error, struct fl_frame_id failed);

#endif
