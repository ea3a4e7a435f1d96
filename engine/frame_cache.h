// SPDX-License-Identifier: Apache-2.0
//
// Decompressed frames, shared by all VMs: a lock-free hash with a byte bound.
//
// A frame is LOADING (a reader works on it; whoever wants it leaves a waiter), then READY or FAILED
// for ever. There is one read per frame however many wait. Lookup takes no lock: a frame that was
// looked up stays valid until the thread's next quiescent state, even if it is evicted meanwhile.
// Who needs it for longer holds a pin. Eviction is by CLOCK, done by the reader threads when they
// add a frame.
#ifndef FAULTLINE_ENGINE_FRAME_CACHE_H
#define FAULTLINE_ENGINE_FRAME_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/io_pool.h"
#include "engine/mailbox.h"
#include "snapshot/read.h"

struct fl_cache;
struct fl_frame;

// Left with a LOADING frame; comes back as mail. Embedded in what waits.
struct fl_waiter {
    struct fl_mail mail;    // .deliver is set by who waits
    struct fl_mailbox *box; // where to deliver
    void *user;             // of who waits
    struct fl_waiter *next;
    struct fl_frame *frame; // on delivery: pinned for the receiver, or NULL on error
    int error;              // on delivery: why the frame could not be read
};

struct fl_cache_stats {
    uint64_t bytes;
    uint64_t limit;
    uint64_t frames;
    uint64_t reads;
    uint64_t read_errors; // failed attempts, each retry counted
    uint64_t failed;      // frames given up
    uint64_t evictions;
};

// `retries` further attempts, with growing pauses, follow a read that fails.
int fl_cache_new(uint64_t limit_bytes, unsigned retries, struct fl_io_pool *pool,
                 struct fl_cache **ret_cache);
// After the readers were stopped and all VMs are gone.
void fl_cache_free(struct fl_cache *cache);

// RCU reader, never blocks: the frame if it is READY, else NULL.
const struct fl_frame *fl_cache_lookup(struct fl_cache *cache, struct fl_frame_id id);
const uint8_t *fl_frame_data(const struct fl_frame *frame);
struct fl_frame_id fl_frame_id(const struct fl_frame *frame);

// RCU reader, never blocks. Starts the read if nobody did. 1: the frame is READY and *ret_frame
// pinned for the caller; 0: the waiter will be delivered; or -ENOMEM.
int fl_cache_want(struct fl_cache *cache, struct fl_image *image, struct fl_frame_id id,
                  struct fl_waiter *waiter, struct fl_frame **ret_frame);
// RCU reader, never blocks. Starts the reads of frames that will be wanted. How many of them, from
// the first on, are in memory or on their way: fewer than `count` if there is no room for more now.
uint32_t fl_cache_ahead(struct fl_cache *cache, struct fl_image *image,
                        const struct fl_frame_id *ids, uint32_t count);
// Any thread.
void fl_frame_unpin(struct fl_frame *frame);

// Any thread.
struct fl_cache_stats fl_cache_stats(struct fl_cache *cache);

#endif
