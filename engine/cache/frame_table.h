// SPDX-License-Identifier: Apache-2.0
//
// The table of frames: what one frame is, what the cache is, looking up and inserting. Every other
// file of the cache stands on this one; it knows none of them.
#ifndef FAULTLINE_CACHE_FRAME_TABLE_H
#define FAULTLINE_CACHE_FRAME_TABLE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/base/io_pool.h"
#include "engine/base/rcu.h"
#include "engine/cache/cache_counts.h"
#include "engine/cache/frame.h"
#include "engine/cache/frame_memory.h"
#include "engine/host/region.h"

// A frame: its pack's id and 0, its number. A page of 2 MiB: the image's id, its first page with
// the top bit set, which no frame's number has.
struct fl_key {
    uint64_t of[2];
    uint64_t at;
};
#define FL_KEY_HUGE (UINT64_C(1) << 63)

enum fl_frame_state {
    FL_FRAME_LOADING, // -> READY or FAILED, by the thread that ends the last part
    FL_FRAME_READY,
    FL_FRAME_FAILED,
};

// Moves: AHEAD -> HOT when it is wanted, AHEAD -> COLD when it was not for long, AHEAD -> TAKEN by
// its taker; HOT -> COLD by the clock's hand, COLD and TAKEN -> HOT when it is looked up.
enum fl_frame_use {
    FL_FRAME_COLD,
    FL_FRAME_HOT,   // looked up since the clock's hand passed
    FL_FRAME_AHEAD, // asked for ahead of use and not used yet: its bytes count as `ahead`
    FL_FRAME_TAKEN, // by the only one that has asked for it: it goes (frame_taken.h)
};

// References. The table has one from fl_frame_table_add() to fl_frame_table_remove(), which the
// thread calls that evicts it (fl_frame_kill_unpinned() first: with a pin it stays) or that ends
// its loading with an error; it then frees it by RCU. So a reader that found it may look at it
// until its next quiescent state, and no longer without a pin.
// Pins: one is the loading's, given up by fl_frame_finish() when all waiters have theirs; one is
// taken for each waiter before its delivery; one is that of the frames that were taken; others are
// taken by fl_frame_pin(), which fails for one that was evicted. Any thread gives them up. With the
// last one of a frame that is evicted goes its memory. `load` is not referenced: it may be looked
// at by a reader that sees the frame LOADING, as the loading's own reference is given up, and its
// memory by RCU, only after the state has changed.
struct fl_frame {
    struct cds_lfht_node node;
    struct rcu_head rcu;
    struct fl_key key;
    struct fl_cache *cache;
    uint32_t pages;
    uint64_t taker;                      // who has asked for it, or 0; constant
    struct fl_frame *next_taken;         // in cache->taken
    _Atomic int state;                   // enum fl_frame_state
    _Atomic int use;                     // enum fl_frame_use
    _Atomic int pins;                    // DEAD once evicted
    _Atomic(struct fl_waiter *) waiters; // a stack, then CLOSED
    struct fl_buffer data;               // set by its load
    struct fl_load *load;                // to be looked at while LOADING only
    // Under the cache's lock:
    struct cds_list_head clock;
    struct cds_list_head in_ahead; // cache->unused or ->leaving, or linked to itself
    uint64_t came_ns;
};

enum { FL_TAKEN_REMEMBERED = 1 << 16 };

// What frame_taken.h does with the frames that were taken.
struct fl_taken {
    _Atomic(struct fl_frame *) first; // a stack of them, each with a pin
    _Atomic uint64_t bytes;           // of these, about
    struct cds_list_head leaving;     // under the cache's lock: came from the stack, have more pins
    struct fl_io_job job;             // looks at them
    atomic_bool looking;              // it is in the pool
    _Atomic uint32_t before[FL_TAKEN_REMEMBERED]; // of a frame that went: a part of its hash
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
    struct fl_taken taken;
    struct fl_cache_counts *counts; // constant once there is work
    struct fl_cache_counts own_counts;
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

// An empty table: -ENOMEM. fini: when no frame is in it any more; a table that never was is none.
int fl_frame_table_init(struct fl_cache *cache);
void fl_frame_table_fini(struct fl_cache *cache);

unsigned long fl_key_hash(struct fl_key key);
struct fl_key fl_frame_key(struct fl_frame_id id);
struct fl_key fl_huge_key(const struct fl_image *image, uint64_t first_page);

// The next three: RCU reader, never block.
// The frame of this key, in whatever state; NULL if there is none.
struct fl_frame *fl_frame_table_find(struct fl_cache *cache, struct fl_key key);
// Puts the frame in, unless the table has one of its key: returns the one that is in the table now.
struct fl_frame *fl_frame_table_add(struct fl_cache *cache, struct fl_frame *frame);
// Takes it out; one that is out already is left so.
void fl_frame_table_remove(struct fl_cache *cache, struct fl_frame *frame);
// Pool or read-ahead thread, RCU offline: the frame if it is READY, pinned, else NULL.
struct fl_frame *fl_frame_table_pin(struct fl_cache *cache, struct fl_frame_id id);

// Any thread: evicts a frame that has no pin, so that it gets none any more. False: it has one.
bool fl_frame_kill_unpinned(struct fl_frame *frame);
// The same of a frame that has none but the caller's, which goes with that.
bool fl_frame_kill_pinned(struct fl_frame *frame);
// Given to fl_rcu_defer(): the end of a frame that was in the table.
void fl_frame_free_rcu(struct rcu_head *head);

#endif
