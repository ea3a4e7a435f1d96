// SPDX-License-Identifier: Apache-2.0
//
// What stays in the cache and what goes: the CLOCK over READY frames. A frame that was looked up
// since the hand passed stays; one with a pin stays; what came ahead of use stays until it is used,
// or for five seconds. The lists and the byte count change under the cache's lock.
#ifndef FAULTLINE_CACHE_FRAME_CLOCK_H
#define FAULTLINE_CACHE_FRAME_CLOCK_H

#include "engine/cache/frame_table.h"

void fl_cache_clock_init(struct fl_cache *cache);
// Pool or read-ahead thread, RCU online: a READY frame takes its place, and others go for it.
void fl_cache_admit(struct fl_cache *cache, struct fl_frame *frame);
// Any thread: looks, now and then, whether what was asked for ahead is still to be used.
void fl_cache_age_soon(struct fl_cache *cache);

#endif
