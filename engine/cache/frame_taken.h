// SPDX-License-Identifier: Apache-2.0
//
// Frames that are used by one alone, and once. A replay or a fill takes each frame of an image in
// its turn, and the first VM of an image is mostly the only one that does. To keep what it has
// taken needs new memory, and for the kernel to give that takes longer than to decompress a frame.
// So a frame that a *taker* has asked for, and no other has, goes when it was taken, and its memory
// is that of the frames that come next: these few MiB are all that there is of the cache then, and
// the kernel has given them before.
//
// It stays, as any frame does, if somebody else has asked for it or has looked it up until then; if
// it has gone in this way before, as far as the cache remembers (some 65,000 frames); and where
// memory that was taken ahead of use (fl_cache_prepare) is not used up.
#ifndef FAULTLINE_CACHE_FRAME_TAKEN_H
#define FAULTLINE_CACHE_FRAME_TAKEN_H

#include "engine/cache/frame_table.h"

// RCU reader, or with a pin: the frame is used. By its own taker, before that has taken it, it may
// be used as often as one likes.
static inline void fl_frame_seen(struct fl_frame *frame, uint64_t taker)
{
    if (taker == 0 || frame->taker != taker ||
        atomic_load_explicit(&frame->use, memory_order_relaxed) != FL_FRAME_AHEAD)
        fl_frame_touch(frame);
}

// RCU reader, never blocks: the taker has taken what it wants of the frame of this key.
void fl_frame_take(struct fl_cache *cache, struct fl_key key, uint64_t taker);

// --- for the clock, with the cache's lock held ---

// Those that were taken since come to `leaving`.
void fl_taken_collect(struct fl_cache *cache);
// A frame of `leaving`: true if it was evicted by this. If it stays after all, it has left the
// list; if it only has another pin now, it is still there.
bool fl_taken_leaves(struct fl_frame *frame);

#endif
