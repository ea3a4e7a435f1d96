// SPDX-License-Identifier: Apache-2.0
//
// A frame of the cache, or a page of 2 MiB, as the threads see it that use one: its bytes, a pin
// that keeps it, and the waiter that is left while it is being loaded (frame_cache.h).
#ifndef FAULTLINE_CACHE_FRAME_H
#define FAULTLINE_CACHE_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/mailbox.h"
#include "snapshot/read.h"

struct fl_frame;

// Left with a LOADING frame; comes back as mail. Embedded in what waits.
//
// References: from fl_cache_want() or fl_cache_await() returning 0 until its delivery it belongs to
// the frame, and what it is embedded in must stay; each is delivered exactly once, by the thread
// that ends the loading, into `box`, which that thread may still look at for a moment after the
// delivery. On delivery `frame` brings a pin, which the receiver gives up by fl_frame_unpin().
struct fl_waiter {
    struct fl_mail mail;    // .deliver is set by the thread that waits
    struct fl_mailbox *box; // where to deliver
    void *user;             // of the thread that waits
    uint64_t taker;         // whose use it is (frame_cache.h), or 0
    struct fl_waiter *next;
    struct fl_frame *frame;    // on delivery: pinned for the receiver, or NULL on error
    int error;                 // on delivery: why the frame could not be read
    struct fl_frame_id failed; // and which one it is; pack 0: not known
};

// With a pin, as the memory of a frame that is evicted is another one's at once. Of a READY frame.
const uint8_t *fl_frame_data(const struct fl_frame *frame);
struct fl_frame_id fl_frame_id(const struct fl_frame *frame); // not of a page of 2 MiB
bool fl_frame_is_huge(const struct fl_frame *frame);          // a page of 2 MiB

// RCU reader: false if it was evicted. A READY frame with no pin may be.
bool fl_frame_pin(struct fl_frame *frame);
// Any thread.
void fl_frame_unpin(struct fl_frame *frame);

#endif
