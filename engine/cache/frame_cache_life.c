// SPDX-License-Identifier: Apache-2.0
//
// The cache as a whole: its beginning, its end, and what is told of it.
#include "engine/cache/frame_cache.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/cache/frame_clock.h"
#include "engine/cache/read_ahead.h"

// What was asked for ahead may be this part of the bound, and this much, until it is used.
enum { AHEAD_SHARE = 4 };
#define AHEAD_MOST (UINT64_C(1) << 30)

int fl_cache_new(uint64_t limit_bytes, unsigned retries, struct fl_io_pool *pool,
                 struct fl_cache **ret_cache)
{
    struct fl_cache *cache = calloc(1, sizeof(*cache));
    if (!cache)
        return -ENOMEM;
    cache->limit = limit_bytes;
    cache->ahead_limit = limit_bytes / AHEAD_SHARE;
    if (cache->ahead_limit > AHEAD_MOST)
        cache->ahead_limit = AHEAD_MOST;
    cache->retries = retries;
    cache->pool = pool;
    cache->counts = &cache->own_counts;
    fl_cache_clock_init(cache);
    fl_frame_memory_init(&cache->memory);
    int error = fl_frame_table_init(cache);
    if (!error)
        error = fl_read_ahead_start(cache, &cache->read_ahead);
    if (error) {
        fl_cache_free(cache);
        return error;
    }
    *ret_cache = cache;
    return 0;
}

void fl_cache_count_in(struct fl_cache *cache, struct fl_cache_counts *counts)
{
    cache->counts = counts;
}

void fl_cache_stop(struct fl_cache *cache)
{
    if (!atomic_exchange(&cache->stopped, true))
        fl_read_ahead_stop(cache->read_ahead);
}

void fl_cache_free(struct fl_cache *cache)
{
    struct fl_frame *frame;
    struct fl_frame *next;
    if (cache->read_ahead)
        fl_read_ahead_free(cache->read_ahead);
    rcu_barrier(); // frames on their way out
    cds_list_for_each_entry_safe(frame, next, &cache->clock, clock)
    {
        fl_frame_table_remove(cache, frame);
        fl_rcu_defer(&frame->rcu, fl_frame_free_rcu);
    }
    rcu_barrier();
    fl_frame_table_fini(cache);
    fl_frame_memory_fini(&cache->memory);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

struct fl_cache_stats fl_cache_stats(struct fl_cache *cache)
{
    return (struct fl_cache_stats){
        .bytes = atomic_load(&cache->bytes),
        .limit = cache->limit,
        .frames = atomic_load(&cache->frames),
        .memory = fl_frame_memory_bytes(&cache->memory),
        .reads = atomic_load(&cache->counts->reads),
        .read_errors = atomic_load(&cache->counts->read_errors),
        .failed = atomic_load(&cache->counts->failed),
        .evictions = atomic_load(&cache->counts->evictions),
        .io = cache->io,
        .ahead_waiting = atomic_load(&cache->ahead),
        .ahead_extents = atomic_load(&cache->counts->ahead_extents),
        .ahead_bytes = atomic_load(&cache->counts->ahead_bytes),
        .ahead_frames = atomic_load(&cache->counts->ahead_frames),
        .ahead_errors = atomic_load(&cache->counts->ahead_errors),
        .promoted = atomic_load(&cache->counts->promoted),
        .taken = atomic_load(&cache->counts->taken),
    };
}
