// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. This file is the top of the cache: it finds a frame in the table, or puts
// one there LOADING and has it brought. Below it, and knowing nothing of it: frame_table (frames,
// pins and the references to them), frame_wait (the waiters of a frame, and the end of its
// loading), frame_clock (what is evicted), frame_load (bringing it), read_ahead (bringing it in
// large pieces).
//
// From the moment on in which a frame is in the table, any thread may find it, hurry it and end its
// load. So the thread that has put it there touches the frame as any RCU reader does, and the load
// only by a reference that it took before.
#include "engine/cache/frame_cache.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/crash_point.h"
#include "engine/cache/frame_clock.h"
#include "engine/cache/frame_load.h"
#include "engine/cache/frame_table.h"
#include "engine/cache/frame_taken.h"
#include "engine/cache/frame_wait.h"
#include "engine/cache/read_ahead.h"

// What to look for, and how to have it if it is not there.
struct wanted {
    struct fl_key key;
    const struct fl_frame_id *id; // NULL: a page of 2 MiB
    uint32_t pages;
    uint64_t taker; // or 0
};

static struct wanted want_of_frame(const struct fl_image *image, const struct fl_frame_id *id,
                                   uint64_t taker)
{
    return (struct wanted){
        .key = fl_frame_key(*id), .id = id, .pages = fl_frame_pages(image, *id), .taker = taker};
}

static struct wanted want_of_huge_page(const struct fl_image *image, uint64_t first_page,
                                       uint64_t taker)
{
    return (struct wanted){
        .key = fl_huge_key(image, first_page), .pages = FL_HUGE_PAGES, .taker = taker};
}

static const struct fl_frame *lookup_ready(struct fl_cache *cache, struct fl_key key,
                                           uint64_t taker)
{
    struct fl_frame *frame = fl_frame_table_find(cache, key);
    if (!frame || !fl_frame_ready(frame))
        return NULL;
    fl_frame_seen(frame, taker);
    return frame;
}

const struct fl_frame *fl_cache_lookup(struct fl_cache *cache, struct fl_frame_id id)
{
    return lookup_ready(cache, fl_frame_key(id), 0);
}

const struct fl_frame *fl_cache_lookup_huge(struct fl_cache *cache, const struct fl_image *image,
                                            uint64_t first_page)
{
    return lookup_ready(cache, fl_huge_key(image, first_page), 0);
}

const struct fl_frame *fl_cache_lookup_for(struct fl_cache *cache, struct fl_frame_id id,
                                           uint64_t taker)
{
    return lookup_ready(cache, fl_frame_key(id), taker);
}

const struct fl_frame *fl_cache_lookup_huge_for(struct fl_cache *cache,
                                                const struct fl_image *image, uint64_t first_page,
                                                uint64_t taker)
{
    return lookup_ready(cache, fl_huge_key(image, first_page), taker);
}

void fl_cache_taken(struct fl_cache *cache, struct fl_frame_id id, uint64_t taker)
{
    fl_frame_take(cache, fl_frame_key(id), taker);
}

void fl_cache_taken_huge(struct fl_cache *cache, const struct fl_image *image, uint64_t first_page,
                         uint64_t taker)
{
    fl_frame_take(cache, fl_huge_key(image, first_page), taker);
}

static struct fl_frame *new_frame(struct fl_cache *cache, struct fl_image *image,
                                  const struct wanted *wanted, enum fl_frame_use use)
{
    struct fl_frame *frame = calloc(1, sizeof(*frame));
    if (!frame)
        return NULL;
    frame->key = wanted->key;
    frame->cache = cache;
    frame->pages = wanted->pages;
    frame->taker = use == FL_FRAME_AHEAD ? wanted->taker : 0;
    frame->pins = 1; // the loading's
    frame->use = use;
    CDS_INIT_LIST_HEAD(&frame->in_ahead);
    cds_lfht_node_init(&frame->node);
    frame->load = fl_load_new(frame, image, wanted->id);
    if (!frame->load) {
        free(frame);
        return NULL;
    }
    return frame;
}

// What find_or_add() has put into the table, if it has.
struct added {
    bool frame;
    struct fl_load *load; // asked for ahead: with a reference, which is for the read-ahead
};

// The frame in the table, put there LOADING if it was missing. From that moment on any thread may
// find it, hurry it and end its load. So what the caller still has to do with the load it can only
// do by a reference taken before, or as a reader that sees the frame LOADING.
static struct fl_frame *find_or_add(struct fl_cache *cache, struct fl_image *image,
                                    const struct wanted *wanted, enum fl_frame_use use,
                                    struct added *ret_added)
{
    struct fl_frame *frame = fl_frame_table_find(cache, wanted->key);
    *ret_added = (struct added){.frame = false};
    if (frame)
        return frame;
    frame = new_frame(cache, image, wanted, use);
    if (!frame)
        return NULL;
    struct fl_load *load = frame->load;
    if (use == FL_FRAME_AHEAD)
        fl_load_ref(load);
    struct fl_frame *there = fl_frame_table_add(cache, frame);
    if (there != frame) {
        fl_load_discard(load);
        free(frame);
        return there;
    }
    *ret_added = (struct added){.frame = true, .load = use == FL_FRAME_AHEAD ? load : NULL};
    FL_CRASH_POINT("frame_added");
    return frame;
}

// Has a frame that a thread waits for read at once. True if this call did it.
static bool hurry_frame(struct fl_frame *frame)
{
    return atomic_load(&frame->state) == FL_FRAME_LOADING && fl_load_hurry(frame->load);
}

// The caller waits for it.
static struct fl_frame *find_or_hurry(struct fl_cache *cache, struct fl_image *image,
                                      const struct wanted *wanted)
{
    struct added added;
    struct fl_frame *frame = find_or_add(cache, image, wanted, FL_FRAME_HOT, &added);
    if (frame && hurry_frame(frame) && !added.frame)
        atomic_fetch_add(&cache->counts->promoted, 1);
    return frame;
}

// No thread waits for it yet: if it is new, *ret_load is for the read-ahead, with a reference,
// else NULL. Counted before it is seen, as it may be used at once.
static struct fl_frame *find_or_ask(struct fl_cache *cache, struct fl_image *image,
                                    const struct wanted *wanted, struct fl_load **ret_load)
{
    uint64_t bytes = (uint64_t)wanted->pages * FL_PAGE_SIZE;
    struct added added;
    atomic_fetch_add(&cache->ahead, bytes);
    struct fl_frame *frame = find_or_add(cache, image, wanted, FL_FRAME_AHEAD, &added);
    if (!added.frame)
        atomic_fetch_sub(&cache->ahead, bytes);
    *ret_load = added.load;
    return frame;
}

// `now`: a thread waits for it, so that it is read ahead of all that is only asked for.
static struct fl_frame *find_or_start(struct fl_cache *cache, struct fl_image *image,
                                      const struct wanted *wanted, bool now)
{
    struct fl_load *load = NULL;
    if (now)
        return find_or_hurry(cache, image, wanted);
    struct fl_frame *frame = find_or_ask(cache, image, wanted, &load);
    if (load)
        fl_read_ahead_ask(cache->read_ahead, load);
    return frame;
}

static int want_frame(struct fl_cache *cache, struct fl_image *image, const struct wanted *wanted,
                      bool now, struct fl_waiter *waiter, struct fl_frame **ret_frame)
{
    for (;;) {
        struct fl_frame *frame = find_or_start(cache, image, wanted, now);
        if (!frame)
            return -ENOMEM;
        FL_CRASH_POINT("frame_begun");
        if (fl_frame_leave_waiter(frame, waiter))
            return 0;
        FL_CRASH_POINT("frame_closed");
        if (fl_frame_ready(frame) && fl_frame_pin(frame)) {
            fl_frame_seen(frame, waiter->taker);
            *ret_frame = frame;
            return 1;
        }
        // Evicted or failed, and about to leave the table: help it out, then look again.
        fl_frame_table_remove(cache, frame);
    }
}

int fl_cache_want(struct fl_cache *cache, struct fl_image *image, struct fl_frame_id id,
                  struct fl_waiter *waiter, struct fl_frame **ret_frame)
{
    struct wanted wanted = want_of_frame(image, &id, waiter->taker);
    return want_frame(cache, image, &wanted, true, waiter, ret_frame);
}

int fl_cache_want_huge(struct fl_cache *cache, struct fl_image *image, uint64_t first_page,
                       struct fl_waiter *waiter, struct fl_frame **ret_frame)
{
    struct wanted wanted = want_of_huge_page(image, first_page, waiter->taker);
    return want_frame(cache, image, &wanted, true, waiter, ret_frame);
}

int fl_cache_await(struct fl_cache *cache, struct fl_image *image, struct fl_frame_id id,
                   struct fl_waiter *waiter, struct fl_frame **ret_frame)
{
    struct wanted wanted = want_of_frame(image, &id, waiter->taker);
    return want_frame(cache, image, &wanted, false, waiter, ret_frame);
}

int fl_cache_await_huge(struct fl_cache *cache, struct fl_image *image, uint64_t first_page,
                        struct fl_waiter *waiter, struct fl_frame **ret_frame)
{
    struct wanted wanted = want_of_huge_page(image, first_page, waiter->taker);
    return want_frame(cache, image, &wanted, false, waiter, ret_frame);
}

static void hurry_if_there(struct fl_cache *cache, struct fl_key key)
{
    struct fl_frame *frame = fl_frame_table_find(cache, key);
    if (frame && hurry_frame(frame))
        atomic_fetch_add(&cache->counts->promoted, 1);
}

void fl_cache_hurry(struct fl_cache *cache, struct fl_frame_id id)
{
    hurry_if_there(cache, fl_frame_key(id));
}

void fl_cache_hurry_huge(struct fl_cache *cache, const struct fl_image *image, uint64_t first_page)
{
    hurry_if_there(cache, fl_huge_key(image, first_page));
}

// --- ahead of use ---

// Whether so many bytes more may be asked for. Two that ask at once may exceed the limit by one.
static bool has_room(struct fl_cache *cache, uint64_t bytes)
{
    if (atomic_load(&cache->ahead) + bytes <= cache->ahead_limit)
        return true;
    fl_cache_age_soon(cache); // perhaps no VM will come for what is there
    return false;
}

// What one call asks for goes to the read-ahead in one piece.
struct chain {
    struct fl_load *first;
    struct fl_load **end;
};

static bool ask_ahead(struct fl_cache *cache, struct fl_image *image, const struct wanted *wanted,
                      struct chain *chain)
{
    struct fl_load *new = NULL;
    struct fl_frame *frame = fl_frame_table_find(cache, wanted->key);
    if (!frame && has_room(cache, (uint64_t)wanted->pages * FL_PAGE_SIZE))
        frame = find_or_ask(cache, image, wanted, &new);
    if (!frame)
        return false;
    if (new) {
        *chain->end = new;
        chain->end = &new->next;
    } else if (frame->taker != wanted->taker ||
               atomic_load_explicit(&frame->use, memory_order_relaxed) != FL_FRAME_AHEAD) {
        // That the hand does not take it before it is used, nor one who believes to be alone.
        fl_frame_touch(frame);
    }
    return true;
}

static void send_chain(struct fl_cache *cache, const struct chain *chain)
{
    if (chain->first)
        fl_read_ahead_ask(cache->read_ahead, chain->first);
}

uint32_t fl_cache_ahead_for(struct fl_cache *cache, struct fl_image *image,
                            const struct fl_frame_id *ids, uint32_t count, uint64_t taker)
{
    struct chain chain = {.end = &chain.first};
    uint32_t begun = 0;
    for (; begun < count; begun++) {
        struct wanted wanted = want_of_frame(image, &ids[begun], taker);
        if (!ask_ahead(cache, image, &wanted, &chain))
            break;
    }
    send_chain(cache, &chain);
    return begun;
}

uint32_t fl_cache_ahead_huge_for(struct fl_cache *cache, struct fl_image *image,
                                 const uint64_t *first_pages, uint32_t count, uint64_t taker)
{
    struct chain chain = {.end = &chain.first};
    uint32_t begun = 0;
    for (; begun < count; begun++) {
        struct wanted wanted = want_of_huge_page(image, first_pages[begun], taker);
        if (!ask_ahead(cache, image, &wanted, &chain))
            break;
    }
    send_chain(cache, &chain);
    return begun;
}

uint32_t fl_cache_ahead(struct fl_cache *cache, struct fl_image *image,
                        const struct fl_frame_id *ids, uint32_t count)
{
    return fl_cache_ahead_for(cache, image, ids, count, 0);
}

uint32_t fl_cache_ahead_huge(struct fl_cache *cache, struct fl_image *image,
                             const uint64_t *first_pages, uint32_t count)
{
    return fl_cache_ahead_huge_for(cache, image, first_pages, count, 0);
}
