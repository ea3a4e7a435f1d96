// SPDX-License-Identifier: Apache-2.0
#include "engine/frame_cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/clock.h"
#include "engine/rcu.h"

char fl_rcu_edge;

enum frame_state {
    LOADING, // -> READY or FAILED, by the reader that loads it
    READY,
    FAILED,
};

// The list of waiters is closed with this mark once the frame is READY or FAILED.
#define CLOSED ((struct fl_waiter *)1)
enum { DEAD = -1, FRAMES_AT_START = 1024, FRAMES_AT_MOST = 1 << 24 };
#define FIRST_PAUSE (2 * FL_NS_PER_MS)
#define PAUSE_GROWTH 5

struct fl_frame {
    struct cds_lfht_node node;
    struct rcu_head rcu;
    struct fl_frame_id id;
    _Atomic int state;                   // written by the loading reader only
    _Atomic int pins;                    // DEAD once evicted
    _Atomic bool hot;                    // looked up since the clock's hand passed
    _Atomic(struct fl_waiter *) waiters; // a stack, then CLOSED
    uint32_t pages;
    uint8_t *data;
    // While LOADING:
    struct fl_cache *cache;
    struct fl_image *image; // a reference
    struct fl_io_job job;
    unsigned attempts;
    // Under the cache's lock:
    struct cds_list_head clock;
};

struct fl_cache {
    struct cds_lfht *table;
    struct fl_io_pool *pool;
    unsigned retries;
    uint64_t limit;
    pthread_mutex_t lock;       // reader threads only: all below, and the frames' `clock`
    struct cds_list_head clock; // READY frames; the hand is at the head
    _Atomic uint64_t bytes;     // changed under the lock, read by anyone
    _Atomic uint64_t frames;
    _Atomic uint64_t reads;
    _Atomic uint64_t read_errors;
    _Atomic uint64_t failed;
    _Atomic uint64_t evictions;
};

static unsigned long hash(struct fl_frame_id id)
{
    uint64_t x = (id.pack ^ ((uint64_t)id.frame << 32 | id.frame)) * 0x9e3779b97f4a7c15ULL;
    return x ^ (x >> 29);
}

static int match(struct cds_lfht_node *node, const void *key)
{
    const struct fl_frame *frame = caa_container_of(node, struct fl_frame, node);
    const struct fl_frame_id *id = key;
    FL_RCU_SEEN(node);
    return frame->id.pack == id->pack && frame->id.frame == id->frame;
}

static struct fl_frame *find(struct fl_cache *cache, struct fl_frame_id id)
{
    struct cds_lfht_iter iter;
    cds_lfht_lookup(cache->table, hash(id), match, &id, &iter);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
    return node ? caa_container_of(node, struct fl_frame, node) : NULL;
}

const struct fl_frame *fl_cache_lookup(struct fl_cache *cache, struct fl_frame_id id)
{
    struct fl_frame *frame = find(cache, id);
    if (!frame || atomic_load_explicit(&frame->state, memory_order_acquire) != READY)
        return NULL;
    if (!atomic_load_explicit(&frame->hot, memory_order_relaxed)) // keep the line shared
        atomic_store_explicit(&frame->hot, true, memory_order_relaxed);
    return frame;
}

const uint8_t *fl_frame_data(const struct fl_frame *frame)
{
    return frame->data;
}

struct fl_frame_id fl_frame_id(const struct fl_frame *frame)
{
    return frame->id;
}

static void free_frame(struct fl_frame *frame)
{
    fl_image_unref(frame->image);
    free(frame->data);
    free(frame);
}

static void free_frame_rcu(struct rcu_head *head)
{
    fl_rcu_freeing();
    free_frame(caa_container_of(head, struct fl_frame, rcu));
}

// Pins: a READY frame with none may be evicted, which makes it DEAD.
static bool pin(struct fl_frame *frame)
{
    int pins = atomic_load(&frame->pins);
    while (pins != DEAD && !atomic_compare_exchange_weak(&frame->pins, &pins, pins + 1)) {
    }
    return pins != DEAD;
}

void fl_frame_unpin(struct fl_frame *frame)
{
    atomic_fetch_sub(&frame->pins, 1);
}

static bool kill_unpinned(struct fl_frame *frame)
{
    int none = 0;
    return atomic_compare_exchange_strong(&frame->pins, &none, DEAD);
}

// With the lock held. Turns the hand until the frames fit, at most twice round: pinned ones stay.
static void evict(struct fl_cache *cache)
{
    uint64_t turns = 2 * atomic_load(&cache->frames);
    while (atomic_load(&cache->bytes) > cache->limit && turns-- > 0) {
        struct fl_frame *frame = cds_list_first_entry(&cache->clock, struct fl_frame, clock);
        cds_list_del(&frame->clock);
        if (atomic_exchange(&frame->hot, false) || !kill_unpinned(frame)) {
            cds_list_add_tail(&frame->clock, &cache->clock);
            continue;
        }
        cds_lfht_del(cache->table, &frame->node);
        atomic_fetch_sub(&cache->bytes, (uint64_t)frame->pages * FL_PAGE_SIZE);
        atomic_fetch_sub(&cache->frames, 1);
        atomic_fetch_add(&cache->evictions, 1);
        fl_rcu_defer(&frame->rcu, free_frame_rcu);
    }
}

static void admit(struct fl_cache *cache, struct fl_frame *frame)
{
    pthread_mutex_lock(&cache->lock);
    cds_list_add_tail(&frame->clock, &cache->clock);
    atomic_fetch_add(&cache->bytes, (uint64_t)frame->pages * FL_PAGE_SIZE);
    atomic_fetch_add(&cache->frames, 1);
    evict(cache);
    pthread_mutex_unlock(&cache->lock);
}

static void deliver(struct fl_frame *frame, struct fl_waiter *waiter, int error)
{
    while (waiter) {
        struct fl_waiter *next = waiter->next;
        waiter->frame = NULL;
        waiter->error = error;
        if (!error) {
            atomic_fetch_add(&frame->pins, 1);
            waiter->frame = frame;
        }
        fl_mailbox_post(waiter->box, &waiter->mail);
        waiter = next;
    }
}

// The loading reader holds a pin of its own until all is delivered, so that nothing evicts the
// frame.
static void finish(struct fl_frame *frame, int error)
{
    struct fl_cache *cache = frame->cache;
    fl_image_unref(frame->image);
    frame->image = NULL;
    fl_rcu_online();
    if (error)
        cds_lfht_del(cache->table, &frame->node);
    atomic_store_explicit(&frame->state, error ? FAILED : READY, memory_order_release);
    deliver(frame, atomic_exchange(&frame->waiters, CLOSED), error);
    if (error) {
        atomic_fetch_add(&cache->failed, 1);
        fl_rcu_defer(&frame->rcu, free_frame_rcu);
    } else {
        admit(cache, frame);
        fl_frame_unpin(frame);
    }
    fl_rcu_offline();
}

static int load(struct fl_frame *frame)
{
    frame->pages = fl_frame_pages(frame->image, frame->id);
    if (frame->pages == 0)
        return -EBADMSG;
    if (!frame->data)
        frame->data = aligned_alloc(FL_PAGE_SIZE, (size_t)frame->pages * FL_PAGE_SIZE);
    return frame->data ? fl_frame_read(frame->image, frame->id, frame->data) : -ENOMEM;
}

static uint64_t run(struct fl_io_job *job)
{
    struct fl_frame *frame = caa_container_of(job, struct fl_frame, job);
    struct fl_cache *cache = frame->cache;
    int error = load(frame);
    atomic_fetch_add(&cache->reads, 1);
    if (error) {
        atomic_fetch_add(&cache->read_errors, 1);
        if (frame->attempts++ < cache->retries) {
            uint64_t pause = FIRST_PAUSE;
            for (unsigned i = 1; i < frame->attempts; i++)
                pause *= PAUSE_GROWTH;
            return fl_now() + pause;
        }
    }
    finish(frame, error);
    return 0;
}

static struct fl_frame *new_frame(struct fl_cache *cache, struct fl_image *image,
                                  struct fl_frame_id id)
{
    struct fl_frame *frame = calloc(1, sizeof(*frame));
    if (!frame)
        return NULL;
    frame->id = id;
    frame->pins = 1; // the loading reader's
    frame->hot = true;
    frame->cache = cache;
    frame->image = fl_image_ref(image);
    frame->job.run = run;
    cds_lfht_node_init(&frame->node);
    FL_RCU_PUBLISH(&frame->node);
    return frame;
}

// The frame in the table, put there LOADING and submitted if it was missing.
static struct fl_frame *find_or_load(struct fl_cache *cache, struct fl_image *image,
                                     struct fl_frame_id id)
{
    struct fl_frame *frame = find(cache, id);
    if (frame)
        return frame;
    frame = new_frame(cache, image, id);
    if (!frame)
        return NULL;
    struct cds_lfht_node *there =
        cds_lfht_add_unique(cache->table, hash(id), match, &id, &frame->node);
    if (there != &frame->node) {
        free_frame(frame);
        return caa_container_of(there, struct fl_frame, node);
    }
    fl_io_pool_submit(cache->pool, &frame->job);
    return frame;
}

static bool leave_waiter(struct fl_frame *frame, struct fl_waiter *waiter)
{
    struct fl_waiter *head = atomic_load(&frame->waiters);
    do {
        if (head == CLOSED)
            return false;
        waiter->next = head;
    } while (!atomic_compare_exchange_weak(&frame->waiters, &head, waiter));
    return true;
}

int fl_cache_want(struct fl_cache *cache, struct fl_image *image, struct fl_frame_id id,
                  struct fl_waiter *waiter, struct fl_frame **ret_frame)
{
    for (;;) {
        struct fl_frame *frame = find_or_load(cache, image, id);
        if (!frame)
            return -ENOMEM;
        if (leave_waiter(frame, waiter))
            return 0;
        if (atomic_load(&frame->state) == READY && pin(frame)) {
            *ret_frame = frame;
            return 1;
        }
        // Evicted or failed, and about to leave the table: help it out, then look again.
        cds_lfht_del(cache->table, &frame->node);
    }
}

uint32_t fl_cache_ahead(struct fl_cache *cache, struct fl_image *image,
                        const struct fl_frame_id *ids, uint32_t count)
{
    uint32_t begun = 0;
    while (begun < count && find_or_load(cache, image, ids[begun]))
        begun++;
    return begun;
}

int fl_cache_new(uint64_t limit_bytes, unsigned retries, struct fl_io_pool *pool,
                 struct fl_cache **ret_cache)
{
    struct fl_cache *cache = calloc(1, sizeof(*cache));
    if (!cache)
        return -ENOMEM;
    cache->table =
        cds_lfht_new(FRAMES_AT_START, FRAMES_AT_START, FRAMES_AT_MOST, CDS_LFHT_AUTO_RESIZE, NULL);
    if (!cache->table) {
        free(cache);
        return -ENOMEM;
    }
    cache->limit = limit_bytes;
    cache->retries = retries;
    cache->pool = pool;
    pthread_mutex_init(&cache->lock, NULL);
    CDS_INIT_LIST_HEAD(&cache->clock);
    *ret_cache = cache;
    return 0;
}

void fl_cache_free(struct fl_cache *cache)
{
    struct fl_frame *frame;
    struct fl_frame *next;
    rcu_barrier(); // frames on their way out
    cds_list_for_each_entry_safe(frame, next, &cache->clock, clock)
    {
        cds_lfht_del(cache->table, &frame->node);
        fl_rcu_defer(&frame->rcu, free_frame_rcu);
    }
    rcu_barrier();
    cds_lfht_destroy(cache->table, NULL);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

struct fl_cache_stats fl_cache_stats(struct fl_cache *cache)
{
    return (struct fl_cache_stats){
        .bytes = atomic_load(&cache->bytes),
        .limit = cache->limit,
        .frames = atomic_load(&cache->frames),
        .reads = atomic_load(&cache->reads),
        .read_errors = atomic_load(&cache->read_errors),
        .failed = atomic_load(&cache->failed),
        .evictions = atomic_load(&cache->evictions),
    };
}
