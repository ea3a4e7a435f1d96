// SPDX-License-Identifier: Apache-2.0
//
// Decompressed frames, shared by all VMs: a lock-free hash with a byte bound. Any number of
// threads.
//
// A frame is LOADING (a reader thread works on it; a thread that wants it leaves a waiter), then
// READY or FAILED for ever. There is one read per frame however many threads wait. Lookup takes no
// lock: a frame that was looked up stays valid until the thread's next quiescent state, even if it
// is evicted meanwhile. To keep it for longer, a thread takes a pin. Eviction is by CLOCK, done by
// the reader threads when they add a frame.
//
// A page of 2 MiB put together from an image's frames is an object of the cache as a frame is, and
// all of this is true of it too: the functions that end in _huge name it by the image and its first
// page there. So every VM after the first copies it in one piece.
//
// A *taker* is one that uses each frame once, in an order that it knows: a VM that is filled. What
// it alone has asked for goes when it was taken (frame_taken.h). It is named by a number that no
// other one has; 0: none.
//
// What is wanted is read at once. What is asked for ahead is read in large pieces behind it, and
// hurried when a thread comes to want it.
#ifndef FAULTLINE_CACHE_FRAME_CACHE_H
#define FAULTLINE_CACHE_FRAME_CACHE_H

#include <stdint.h>

#include "engine/base/io_pool.h"
#include "engine/cache/cache_counts.h"
#include "engine/cache/frame.h"
#include "snapshot/read.h"

struct fl_cache;

struct fl_cache_stats {
    uint64_t bytes;
    uint64_t limit;
    uint64_t frames;      // and pages of 2 MiB
    uint64_t memory;      // bytes that are taken for them, in use or kept for the next ones
    uint64_t reads;       // of frames one by one
    uint64_t read_errors; // failed attempts of these, each retry counted
    uint64_t failed;      // frames, and pages of 2 MiB, given up
    uint64_t evictions;
    const char *io;         // how read-ahead reads: "io_uring" or "threads"
    uint64_t ahead_waiting; // bytes, decompressed, asked for ahead and not used yet
    uint64_t ahead_extents; // reads of several frames at once
    uint64_t ahead_bytes;   // as stored, that these brought
    uint64_t ahead_frames;  // that came with them
    uint64_t ahead_errors;  // extents that could not be read, frames in them that were not right
    uint64_t promoted;      // asked for ahead, then wanted before they were there
    uint64_t taken;         // frames, and pages of 2 MiB, that went as one alone had use for them
};

// `retries` further attempts, with growing pauses, follow a read that fails. 0, or -errno. The pool
// stays the caller's, and outlives the cache's work (fl_cache_stop).
int fl_cache_new(uint64_t limit_bytes, unsigned retries, struct fl_io_pool *pool,
                 struct fl_cache **ret_cache);
// It counts there from now on, and not in memory of its own. Before it is asked for anything.
void fl_cache_count_in(struct fl_cache *cache, struct fl_cache_counts *counts);
// Takes memory for so many bytes of frames now, in the readers' spare time, and keeps it: a
// load that needs it then need not wait until the kernel has cleared it. Waits while less than
// `reserve` percent of the host's memory are available: that of a predecessor is being freed. Once.
// -ENOMEM: nothing is done.
int fl_cache_prepare(struct fl_cache *cache, uint64_t bytes, unsigned reserve);
// Ends the read-ahead, before the readers are stopped; what no thread waits for is not read any
// more.
void fl_cache_stop(struct fl_cache *cache);
// After the readers were stopped and all VMs are gone.
void fl_cache_free(struct fl_cache *cache);

// RCU reader, never blocks: the frame if it is READY, else NULL.
const struct fl_frame *fl_cache_lookup(struct fl_cache *cache, struct fl_frame_id id);
const struct fl_frame *fl_cache_lookup_huge(struct fl_cache *cache, const struct fl_image *image,
                                            uint64_t first_page);
// The same for a taker, before it says that it has taken the frame.
const struct fl_frame *fl_cache_lookup_for(struct fl_cache *cache, struct fl_frame_id id,
                                           uint64_t taker);
const struct fl_frame *fl_cache_lookup_huge_for(struct fl_cache *cache,
                                                const struct fl_image *image, uint64_t first_page,
                                                uint64_t taker);
// RCU reader, never blocks. The taker has taken what it wants of this frame.
void fl_cache_taken(struct fl_cache *cache, struct fl_frame_id id, uint64_t taker);
void fl_cache_taken_huge(struct fl_cache *cache, const struct fl_image *image, uint64_t first_page,
                         uint64_t taker);

// RCU reader, never blocks. Starts the read unless it was started, ahead of all that is not wanted
// yet. 1: the frame is READY and *ret_frame pinned for the caller; 0: the waiter will be delivered;
// or -ENOMEM.
int fl_cache_want(struct fl_cache *cache, struct fl_image *image, struct fl_frame_id id,
                  struct fl_waiter *waiter, struct fl_frame **ret_frame);
int fl_cache_want_huge(struct fl_cache *cache, struct fl_image *image, uint64_t first_page,
                       struct fl_waiter *waiter, struct fl_frame **ret_frame);
// The same for a thread that can wait: it comes when what is wanted leaves time for it.
int fl_cache_await(struct fl_cache *cache, struct fl_image *image, struct fl_frame_id id,
                   struct fl_waiter *waiter, struct fl_frame **ret_frame);
int fl_cache_await_huge(struct fl_cache *cache, struct fl_image *image, uint64_t first_page,
                        struct fl_waiter *waiter, struct fl_frame **ret_frame);
// RCU reader, never blocks. A frame that a thread could wait for is wanted now.
void fl_cache_hurry(struct fl_cache *cache, struct fl_frame_id id);
void fl_cache_hurry_huge(struct fl_cache *cache, const struct fl_image *image, uint64_t first_page);

// RCU reader, never blocks. Starts the reads of frames that will be wanted, in this order:
// neighbours on disk are read together, so ask for many in one call. How many of them, from the
// first on, are in memory or on their way: fewer than `count` if there is no room for more now. A
// part of the bound is for what was asked for and is not used yet; it gets free by use, or when
// nothing has come of it for seconds.
uint32_t fl_cache_ahead(struct fl_cache *cache, struct fl_image *image,
                        const struct fl_frame_id *ids, uint32_t count);
uint32_t fl_cache_ahead_huge(struct fl_cache *cache, struct fl_image *image,
                             const uint64_t *first_pages, uint32_t count);
// The same for a taker.
uint32_t fl_cache_ahead_for(struct fl_cache *cache, struct fl_image *image,
                            const struct fl_frame_id *ids, uint32_t count, uint64_t taker);
uint32_t fl_cache_ahead_huge_for(struct fl_cache *cache, struct fl_image *image,
                                 const uint64_t *first_pages, uint32_t count, uint64_t taker);
// Any thread.
struct fl_cache_stats fl_cache_stats(struct fl_cache *cache);

#endif
