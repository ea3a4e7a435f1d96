// SPDX-License-Identifier: Apache-2.0
#include "engine/cache/frame_clock.h"

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/probe.h"
#include "engine/cache/frame_taken.h"

// How long what came ahead counts as on its way to its use, and how often that is looked at.
#define AHEAD_KEPT (5 * FL_NS_PER_S)
#define AGE_EVERY (100 * FL_NS_PER_MS)

// What was asked for ahead stays until it is used or has aged: there is little of it.
static bool frame_is_spared(struct fl_frame *frame)
{
    int use = FL_FRAME_HOT;
    return atomic_compare_exchange_strong(&frame->use, &use, FL_FRAME_COLD) ||
           use == FL_FRAME_AHEAD;
}

// With the lock held: a frame that was killed is out of all lists but `dead`.
static void take_out(struct fl_cache *cache, struct fl_frame *frame, struct cds_list_head *dead)
{
    cds_list_del(&frame->clock);
    cds_list_del(&frame->in_ahead);
    fl_frame_table_remove(cache, frame);
    atomic_fetch_sub(&cache->bytes, fl_frame_bytes(frame));
    atomic_fetch_sub(&cache->frames, 1);
    cds_list_add(&frame->clock, dead);
}

// Without the lock: the memory first, which the next frame can have, as no thread has a pin.
static void bury(struct fl_cache *cache, struct cds_list_head *dead)
{
    struct fl_frame *frame;
    struct fl_frame *next;
    cds_list_for_each_entry_safe(frame, next, dead, clock)
    {
        fl_frame_memory_put(&cache->memory, frame->data, frame->pages);
        frame->data = (struct fl_buffer){.bytes = NULL};
        fl_rcu_defer(&frame->rcu, fl_frame_free_rcu);
    }
}

// With the lock held. What was taken and is used no more goes.
static void evict_taken(struct fl_cache *cache, struct cds_list_head *dead)
{
    struct fl_frame *frame;
    struct fl_frame *next;
    fl_taken_collect(cache);
    cds_list_for_each_entry_safe(frame, next, &cache->taken.leaving, in_ahead)
    {
        if (!fl_taken_leaves(frame))
            continue;
        FL_CRASH_POINT("frame_taken_out");
        take_out(cache, frame, dead);
        atomic_fetch_add(&cache->counts->taken, 1);
    }
}

// With the lock held. Turns the hand until the frames fit, at most twice round: pinned ones stay.
static void evict_frames(struct fl_cache *cache, struct cds_list_head *dead)
{
    uint64_t turns = 2 * atomic_load(&cache->frames);
    while (atomic_load(&cache->bytes) > cache->limit && turns-- > 0) {
        struct fl_frame *frame = cds_list_first_entry(&cache->clock, struct fl_frame, clock);
        if (frame_is_spared(frame) || !fl_frame_kill_unpinned(frame)) {
            cds_list_del(&frame->clock);
            cds_list_add_tail(&frame->clock, &cache->clock);
            continue;
        }
        FL_CRASH_POINT("frame_evicted");
        FL_PROBE(evict, frame->key.of[0], frame->key.at, fl_frame_bytes(frame));
        take_out(cache, frame, dead);
        atomic_fetch_add(&cache->counts->evictions, 1);
    }
}

// With the lock held. Frames that came ahead and were used meanwhile leave the list; those that
// were not for long are like any other.
static void age_unused(struct fl_cache *cache, uint64_t now)
{
    while (!cds_list_empty(&cache->unused)) {
        struct fl_frame *frame = cds_list_first_entry(&cache->unused, struct fl_frame, in_ahead);
        if (atomic_load(&frame->use) == FL_FRAME_AHEAD) {
            if (now - frame->came_ns < AHEAD_KEPT)
                return;
            int ahead = FL_FRAME_AHEAD;
            if (atomic_compare_exchange_strong(&frame->use, &ahead, FL_FRAME_COLD))
                atomic_fetch_sub(&cache->ahead, fl_frame_bytes(frame));
        }
        cds_list_del_init(&frame->in_ahead);
    }
}

void fl_cache_admit(struct fl_cache *cache, struct fl_frame *frame)
{
    CDS_LIST_HEAD(dead);
    pthread_mutex_lock(&cache->lock);
    cds_list_add_tail(&frame->clock, &cache->clock);
    uint64_t now = fl_now();
    if (atomic_load(&frame->use) == FL_FRAME_AHEAD) {
        frame->came_ns = now;
        cds_list_add_tail(&frame->in_ahead, &cache->unused);
    }
    age_unused(cache, now); // what was not come for must keep no place from what was
    atomic_fetch_add(&cache->bytes, fl_frame_bytes(frame));
    atomic_fetch_add(&cache->frames, 1);
    evict_taken(cache, &dead);
    evict_frames(cache, &dead);
    pthread_mutex_unlock(&cache->lock);
    bury(cache, &dead);
}

static uint64_t run_taken(struct fl_io_job *job)
{
    struct fl_cache *cache = caa_container_of(job, struct fl_cache, taken.job);
    CDS_LIST_HEAD(dead);
    atomic_store(&cache->taken.looking, false); // first: what is left there behind this is seen
    fl_rcu_online();
    pthread_mutex_lock(&cache->lock);
    evict_taken(cache, &dead);
    pthread_mutex_unlock(&cache->lock);
    bury(cache, &dead);
    fl_rcu_offline();
    return 0;
}

static uint64_t run_age(struct fl_io_job *job)
{
    struct fl_cache *cache = caa_container_of(job, struct fl_cache, age_job);
    pthread_mutex_lock(&cache->lock);
    uint64_t now = fl_now(); // not before: what came while we waited for the lock is not old
    age_unused(cache, now);
    pthread_mutex_unlock(&cache->lock);
    atomic_store(&cache->aged_ns, now);
    atomic_store(&cache->aging, false);
    return 0;
}

void fl_cache_age_soon(struct fl_cache *cache)
{
    if (fl_now() - atomic_load(&cache->aged_ns) > AGE_EVERY &&
        !atomic_exchange(&cache->aging, true))
        fl_io_pool_submit(cache->pool, &cache->age_job);
}

void fl_cache_clock_init(struct fl_cache *cache)
{
    cache->age_job.run = run_age;
    cache->taken.job.run = run_taken;
    CDS_INIT_LIST_HEAD(&cache->taken.leaving);
    pthread_mutex_init(&cache->lock, NULL);
    CDS_INIT_LIST_HEAD(&cache->clock);
    CDS_INIT_LIST_HEAD(&cache->unused);
}
