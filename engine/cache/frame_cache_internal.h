// SPDX-License-Identifier: Apache-2.0
//
// What the files behind frame_cache.h share.
//
//   frame_cache.c  the table: looking up, and having what is not there brought
//   frame_wait.c   those who wait for a frame, and the end of its loading
//   frame_clock.c  pins, use, and what is evicted
//   frame_load.c   bringing one frame, or the parts of a page of 2 MiB
//   frame_part.c   the bytes of one part into their place
//   read_ahead.c   what nobody waits for yet: large reads, far ahead
//   extent.c       which frames one read brings
//   uring.c         io_uring
//   frame_cache_life.c  the cache as a whole
#ifndef FAULTLINE_CACHE_FRAME_CACHE_INTERNAL_H
#define FAULTLINE_CACHE_FRAME_CACHE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <urcu/list.h>

#include "engine/base/rcu.h"
#include "engine/cache/frame_cache.h"
#include "engine/cache/frame_memory.h"

enum { FL_HUGE_PAGES = 512 };

// A frame: its pack's id and 0, its number. A page of 2 MiB: the image's id, its first page with
// the top bit set, which no frame's number has.
struct fl_key {
    uint64_t of[2];
    uint64_t at;
};
#define FL_KEY_HUGE (UINT64_C(1) << 63)

enum fl_frame_state {
    FL_FRAME_LOADING, // -> READY or FAILED, by who brings the last part of it
    FL_FRAME_READY,
    FL_FRAME_FAILED,
};

// Moves: AHEAD -> HOT when it is wanted, AHEAD -> COLD when it was not for long; HOT -> COLD by the
// clock's hand, COLD -> HOT when it is looked up.
enum fl_frame_use {
    FL_FRAME_COLD,
    FL_FRAME_HOT,   // looked up since the clock's hand passed
    FL_FRAME_AHEAD, // asked for ahead of use and not used yet: its bytes count as `ahead`
};

// References. The table has one from cds_lfht_add_unique() to cds_lfht_del(), which whoever evicts
// it (kill_unpinned() first: with a pin it stays) or fails it calls, and then frees it by RCU: so a
// reader that found it may look at it until its next quiescent state, and no longer without a pin.
// Pins: one is the loading's, given up by fl_frame_finish() when all waiters have theirs; one is
// taken for each waiter before its delivery; others are taken by fl_frame_pin(), which fails for
// one that was evicted. Any thread gives them up. `load` is not referenced: it may be looked at by
// a reader that sees the frame LOADING, as the loading's own reference is given up, and its memory
// by RCU, only after the state has changed.
struct fl_frame {
    struct cds_lfht_node node;
    struct rcu_head rcu;
    struct fl_key key;
    struct fl_cache *cache;
    uint32_t pages;
    _Atomic int state;                   // enum fl_frame_state
    _Atomic int use;                     // enum fl_frame_use
    _Atomic int pins;                    // DEAD once evicted
    _Atomic(struct fl_waiter *) waiters; // a stack, then CLOSED
    struct fl_buffer data;               // set by who loads it
    struct fl_load *load;                // to be looked at while LOADING only
    // Under the cache's lock:
    struct cds_list_head clock;
    struct cds_list_head in_ahead; // cache->unused, or linked to itself
    uint64_t came_ns;
};

struct fl_cache {
    struct cds_lfht *table;
    struct fl_io_pool *pool;
    struct fl_read_ahead *read_ahead;
    atomic_bool stopped; // the read-ahead, and the taking of memory
    struct fl_frame_memory memory;
    struct fl_io_job prepare_job;
    unsigned prepare_reserve;
    unsigned prepared; // times that prepare_job has taken memory
    const char *io;    // how the read-ahead reads
    unsigned retries;
    uint64_t limit;
    uint64_t ahead_limit;
    pthread_mutex_t lock;        // pool threads only: the two lists, and the frames' fields above
    struct cds_list_head clock;  // READY frames; the hand is at the head
    struct cds_list_head unused; // of them, those that came ahead; in the order in which they came
    struct fl_io_job age_job;
    atomic_bool aging; // age_job is in the pool
    _Atomic uint64_t aged_ns;
    _Atomic uint64_t bytes; // changed under the lock, read by anyone
    _Atomic uint64_t frames;
    _Atomic uint64_t ahead; // bytes that were asked for ahead and not used yet
    _Atomic uint64_t reads;
    _Atomic uint64_t read_errors;
    _Atomic uint64_t failed;
    _Atomic uint64_t evictions;
    _Atomic uint64_t promoted;
    _Atomic uint64_t ahead_frames; // brought by extents
    _Atomic uint64_t ahead_bytes;  // of extents
    _Atomic uint64_t ahead_extents;
    _Atomic uint64_t ahead_errors; // extents, or frames in them, that had to be read one by one
};

static inline bool fl_frame_ready(const struct fl_frame *frame)
{
    return atomic_load_explicit(&frame->state, memory_order_acquire) == FL_FRAME_READY;
}

static inline uint64_t fl_frame_bytes(const struct fl_frame *frame)
{
    return (uint64_t)frame->pages * FL_PAGE_SIZE;
}

// Any thread. If it was AHEAD, it counts as asked for ahead no more.
void fl_frame_set_use(struct fl_frame *frame, enum fl_frame_use use);

static inline void fl_frame_touch(struct fl_frame *frame)
{
    // Most often it is, and then the line stays shared.
    if (atomic_load_explicit(&frame->use, memory_order_relaxed) != FL_FRAME_HOT)
        fl_frame_set_use(frame, FL_FRAME_HOT);
}

// The end of a frame that was published.
void fl_frame_free_rcu(struct rcu_head *head);

void fl_cache_clock_init(struct fl_cache *cache);
// Pool or read-ahead thread, RCU online: a READY frame takes its place, and others go for it.
void fl_cache_admit(struct fl_cache *cache, struct fl_frame *frame);
// Any thread: looks, now and then, whether what was asked for ahead is still to be used.
void fl_cache_age_soon(struct fl_cache *cache);

// RCU reader: false if the frame is READY or FAILED already. Else the waiter will be delivered.
bool fl_frame_leave_waiter(struct fl_frame *frame, struct fl_waiter *waiter);
// Pool or read-ahead thread, RCU offline: the end of a LOADING frame. Delivers to all who wait.
void fl_frame_finish(struct fl_frame *frame, int error);
// The same threads: the frame if it is READY, pinned, else NULL.
struct fl_frame *fl_cache_pin(struct fl_cache *cache, struct fl_frame_id id);

#endif
