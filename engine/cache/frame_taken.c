// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A worker that has taken a frame makes it TAKEN, which happens once in the
// life of a frame, and leaves it on a stack, with a pin: so nothing evicts it before it is off the
// stack. A thread of the pool that admits a frame, or is asked to look, collects the stack under
// the cache's lock. A frame there without another pin dies; one that was looked up meanwhile is HOT
// and loses only the pin. One that is not yet admitted has the pin of its loading.
#include "engine/cache/frame_taken.h"

#include "engine/base/crash_point.h"

// So much may lie on the stack before a thread of the pool is asked to look.
#define LOOK_AFTER (UINT64_C(1) << 20)

// --- under the lock ---

void fl_taken_collect(struct fl_cache *cache)
{
    struct fl_taken *taken = &cache->taken;
    if (!atomic_load_explicit(&taken->first, memory_order_relaxed))
        return;
    atomic_store(&taken->bytes, 0);
    struct fl_frame *frame = atomic_exchange(&taken->first, NULL);
    for (; frame; frame = frame->next_taken) {
        cds_list_del(&frame->in_ahead);
        cds_list_add_tail(&frame->in_ahead, &taken->leaving);
    }
}

bool fl_taken_leaves(struct fl_frame *frame)
{
    if (atomic_load(&frame->use) == FL_FRAME_TAKEN)
        return fl_frame_kill_pinned(frame);
    cds_list_del_init(&frame->in_ahead);
    fl_frame_unpin(frame);
    return false;
}

// --- the taker ---

// Also remembers it.
static bool was_taken_before(struct fl_cache *cache, struct fl_key key)
{
    uint64_t hash = fl_key_hash(key);
    uint32_t mark = (uint32_t)(hash >> 32) | 1;
    return atomic_exchange(&cache->taken.before[hash % FL_TAKEN_REMEMBERED], mark) == mark;
}

static bool stays(struct fl_cache *cache, const struct fl_frame *frame)
{
    return !fl_frame_memory_is_new(&cache->memory) || was_taken_before(cache, frame->key);
}

static void leave(struct fl_cache *cache, struct fl_frame *frame)
{
    struct fl_taken *taken = &cache->taken;
    uint64_t bytes = fl_frame_bytes(frame);
    struct fl_frame *first = atomic_load(&taken->first);
    do
        frame->next_taken = first;
    while (!atomic_compare_exchange_weak(&taken->first, &first, frame));
    FL_CRASH_POINT("frame_taken");
    if (atomic_fetch_add(&taken->bytes, bytes) + bytes >= LOOK_AFTER &&
        !atomic_exchange(&taken->looking, true))
        fl_io_pool_submit(cache->pool, &taken->job);
}

void fl_frame_take(struct fl_cache *cache, struct fl_key key, uint64_t taker)
{
    struct fl_frame *frame = fl_frame_table_find(cache, key);
    int ahead = FL_FRAME_AHEAD;
    if (!frame || frame->taker != taker || !fl_frame_ready(frame) ||
        atomic_load(&frame->use) != FL_FRAME_AHEAD)
        return;
    if (stays(cache, frame)) {
        fl_frame_touch(frame);
        return;
    }
    if (!fl_frame_pin(frame))
        return;
    if (!atomic_compare_exchange_strong(&frame->use, &ahead, FL_FRAME_TAKEN)) {
        fl_frame_unpin(frame);
        return;
    }
    atomic_fetch_sub(&cache->ahead, fl_frame_bytes(frame));
    leave(cache, frame);
}
