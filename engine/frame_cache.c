// SPDX-License-Identifier: Apache-2.0
#include "engine/frame_cache.h"

#include <errno.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/frame_cache_internal.h"
#include "engine/frame_load.h"
#include "engine/read_ahead.h"

char fl_rcu_edge;

// The list of waiters is closed with this mark once the frame is READY or FAILED.
#define CLOSED ((struct fl_waiter *)1)
enum { FRAMES_AT_START = 1024, FRAMES_AT_MOST = 1 << 24 };
// What was asked for ahead may be this part of the bound, and this much, until it is used.
enum { AHEAD_SHARE = 4 };
#define AHEAD_MOST (UINT64_C(1) << 30)

// What to look for, and how to have it if it is not there.
struct what {
    struct fl_key key;
    const struct fl_frame_id *id; // NULL: a page of 2 MiB
    uint32_t pages;
};

static struct fl_key frame_key(struct fl_frame_id id)
{
    return (struct fl_key){.of = {id.pack, 0}, .at = id.frame};
}

static struct fl_key huge_key(const struct fl_image *image, uint64_t first_page)
{
    struct fl_image_id id = fl_image_id(image);
    return (struct fl_key){.of = {id.word[0], id.word[1]}, .at = first_page | FL_KEY_HUGE};
}

static struct what a_frame(const struct fl_image *image, const struct fl_frame_id *id)
{
    return (struct what){.key = frame_key(*id), .id = id, .pages = fl_frame_pages(image, *id)};
}

static struct what a_huge_page(const struct fl_image *image, uint64_t first_page)
{
    return (struct what){.key = huge_key(image, first_page), .pages = FL_HUGE_PAGES};
}

static unsigned long hash(struct fl_key key)
{
    uint64_t x = (key.of[0] ^ (key.at << 32 | key.at >> 32) ^ key.at) * 0x9e3779b97f4a7c15ULL;
    return x ^ (x >> 29);
}

static int match(struct cds_lfht_node *node, const void *wanted)
{
    const struct fl_frame *frame = caa_container_of(node, struct fl_frame, node);
    const struct fl_key *key = wanted;
    FL_RCU_SEEN(node);
    return frame->key.of[0] == key->of[0] && frame->key.of[1] == key->of[1] &&
           frame->key.at == key->at;
}

static struct fl_frame *find(struct fl_cache *cache, struct fl_key key)
{
    struct cds_lfht_iter iter;
    cds_lfht_lookup(cache->table, hash(key), match, &key, &iter);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
    return node ? caa_container_of(node, struct fl_frame, node) : NULL;
}

static bool ready(const struct fl_frame *frame)
{
    return atomic_load_explicit(&frame->state, memory_order_acquire) == FL_FRAME_READY;
}

static const struct fl_frame *lookup(struct fl_cache *cache, struct fl_key key)
{
    struct fl_frame *frame = find(cache, key);
    if (!frame || !ready(frame))
        return NULL;
    fl_frame_touch(frame);
    return frame;
}

const struct fl_frame *fl_cache_lookup(struct fl_cache *cache, struct fl_frame_id id)
{
    return lookup(cache, frame_key(id));
}

const struct fl_frame *fl_cache_lookup_huge(struct fl_cache *cache, const struct fl_image *image,
                                            uint64_t first_page)
{
    return lookup(cache, huge_key(image, first_page));
}

const uint8_t *fl_frame_data(const struct fl_frame *frame)
{
    return frame->data.bytes;
}

struct fl_frame_id fl_frame_id(const struct fl_frame *frame)
{
    return (struct fl_frame_id){.pack = frame->key.of[0], .frame = (uint32_t)frame->key.at};
}

static void free_frame(struct fl_frame *frame)
{
    fl_frame_memory_put(&frame->cache->memory, frame->data, frame->pages);
    free(frame);
}

void fl_frame_free_rcu(struct rcu_head *head)
{
    fl_rcu_freeing();
    free_frame(caa_container_of(head, struct fl_frame, rcu));
}

struct fl_frame *fl_cache_pin(struct fl_cache *cache, struct fl_frame_id id)
{
    fl_rcu_online();
    struct fl_frame *frame = find(cache, frame_key(id));
    if (frame && ready(frame) && fl_frame_pin(frame))
        fl_frame_touch(frame);
    else
        frame = NULL;
    fl_rcu_offline();
    return frame;
}

static void deliver(struct fl_frame *frame, struct fl_waiter *waiter, int error)
{
    while (waiter) {
        struct fl_waiter *next = waiter->next;
        waiter->frame = NULL;
        waiter->error = error;
        if (!error) {
            fl_frame_touch(frame);
            atomic_fetch_add(&frame->pins, 1);
            waiter->frame = frame;
        }
        fl_mailbox_post(waiter->box, &waiter->mail);
        waiter = next;
    }
}

// The loading has a pin of its own until all is delivered, so that nothing evicts the frame.
void fl_frame_finish(struct fl_frame *frame, int error)
{
    struct fl_cache *cache = frame->cache;
    fl_rcu_online();
    if (error)
        cds_lfht_del(cache->table, &frame->node);
    atomic_store_explicit(&frame->state, error ? FL_FRAME_FAILED : FL_FRAME_READY,
                          memory_order_release);
    deliver(frame, atomic_exchange(&frame->waiters, CLOSED), error);
    if (error) {
        fl_frame_set_use(frame, FL_FRAME_COLD);
        atomic_fetch_add(&cache->failed, 1);
        fl_rcu_defer(&frame->rcu, fl_frame_free_rcu);
    } else {
        fl_cache_admit(cache, frame);
        fl_frame_unpin(frame);
    }
    fl_rcu_offline();
}

static struct fl_frame *new_frame(struct fl_cache *cache, struct fl_image *image,
                                  const struct what *what, enum fl_frame_use use)
{
    struct fl_frame *frame = calloc(1, sizeof(*frame));
    if (!frame)
        return NULL;
    frame->key = what->key;
    frame->cache = cache;
    frame->pages = what->pages;
    frame->pins = 1; // the loading's
    frame->use = use;
    CDS_INIT_LIST_HEAD(&frame->in_ahead);
    cds_lfht_node_init(&frame->node);
    frame->load = fl_load_new(frame, image, what->id);
    if (!frame->load) {
        free(frame);
        return NULL;
    }
    FL_RCU_PUBLISH(&frame->node);
    return frame;
}

// The frame in the table, put there LOADING if it was missing: then its load is *ret_new, else
// NULL there.
static struct fl_frame *find_or_add(struct fl_cache *cache, struct fl_image *image,
                                    const struct what *what, enum fl_frame_use use,
                                    struct fl_load **ret_new)
{
    struct fl_frame *frame = find(cache, what->key);
    *ret_new = NULL;
    if (frame)
        return frame;
    frame = new_frame(cache, image, what, use);
    if (!frame)
        return NULL;
    struct fl_load *load = frame->load;
    // Whoever finds it from now on may end the load: not before it is handed on below.
    if (use == FL_FRAME_AHEAD)
        fl_load_ref(load);
    struct cds_lfht_node *there =
        cds_lfht_add_unique(cache->table, hash(what->key), match, &what->key, &frame->node);
    if (there != &frame->node) {
        fl_load_discard(load);
        free(frame);
        return caa_container_of(there, struct fl_frame, node);
    }
    *ret_new = load;
    return frame;
}

// The same for what is not wanted yet: counted before it is seen, as it may be used at once.
static struct fl_frame *find_or_ask(struct fl_cache *cache, struct fl_image *image,
                                    const struct what *what, struct fl_load **ret_new)
{
    uint64_t bytes = (uint64_t)what->pages * FL_PAGE_SIZE;
    atomic_fetch_add(&cache->ahead, bytes);
    struct fl_frame *frame = find_or_add(cache, image, what, FL_FRAME_AHEAD, ret_new);
    if (!*ret_new)
        atomic_fetch_sub(&cache->ahead, bytes);
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

// Has it loaded in its turn: at once, or by the read-ahead (only if it is new: else it is there).
static void begin(struct fl_frame *frame, struct fl_load *new, bool wanted)
{
    struct fl_cache *cache = frame->cache;
    if (wanted && atomic_load(&frame->state) == FL_FRAME_LOADING) {
        if (fl_load_hurry(frame->load) && !new)
            atomic_fetch_add(&cache->promoted, 1);
    } else if (new) {
        fl_read_ahead_ask(cache->read_ahead, new);
    }
}

static int want(struct fl_cache *cache, struct fl_image *image, const struct what *what,
                bool wanted, struct fl_waiter *waiter, struct fl_frame **ret_frame)
{
    for (;;) {
        struct fl_load *new = NULL;
        struct fl_frame *frame = wanted ? find_or_add(cache, image, what, FL_FRAME_HOT, &new)
                                        : find_or_ask(cache, image, what, &new);
        if (!frame)
            return -ENOMEM;
        begin(frame, new, wanted);
        if (leave_waiter(frame, waiter))
            return 0;
        if (ready(frame) && fl_frame_pin(frame)) {
            fl_frame_touch(frame);
            *ret_frame = frame;
            return 1;
        }
        // Evicted or failed, and about to leave the table: help it out, then look again.
        cds_lfht_del(cache->table, &frame->node);
    }
}

int fl_cache_want(struct fl_cache *cache, struct fl_image *image, struct fl_frame_id id,
                  struct fl_waiter *waiter, struct fl_frame **ret_frame)
{
    struct what what = a_frame(image, &id);
    return want(cache, image, &what, true, waiter, ret_frame);
}

int fl_cache_want_huge(struct fl_cache *cache, struct fl_image *image, uint64_t first_page,
                       struct fl_waiter *waiter, struct fl_frame **ret_frame)
{
    struct what what = a_huge_page(image, first_page);
    return want(cache, image, &what, true, waiter, ret_frame);
}

int fl_cache_await(struct fl_cache *cache, struct fl_image *image, struct fl_frame_id id,
                   struct fl_waiter *waiter, struct fl_frame **ret_frame)
{
    struct what what = a_frame(image, &id);
    return want(cache, image, &what, false, waiter, ret_frame);
}

int fl_cache_await_huge(struct fl_cache *cache, struct fl_image *image, uint64_t first_page,
                        struct fl_waiter *waiter, struct fl_frame **ret_frame)
{
    struct what what = a_huge_page(image, first_page);
    return want(cache, image, &what, false, waiter, ret_frame);
}

static void hurry(struct fl_cache *cache, struct fl_key key)
{
    struct fl_frame *frame = find(cache, key);
    if (frame)
        begin(frame, NULL, true);
}

void fl_cache_hurry(struct fl_cache *cache, struct fl_frame_id id)
{
    hurry(cache, frame_key(id));
}

void fl_cache_hurry_huge(struct fl_cache *cache, const struct fl_image *image, uint64_t first_page)
{
    hurry(cache, huge_key(image, first_page));
}

// --- ahead of use ---

// Whether so many bytes more may be asked for. Two that ask at once may exceed the limit by one.
static bool has_room(struct fl_cache *cache, uint64_t bytes)
{
    if (atomic_load(&cache->ahead) + bytes <= cache->ahead_limit)
        return true;
    fl_cache_age_soon(cache); // perhaps nobody will come for what is there
    return false;
}

// What one call asks for goes to the read-ahead in one piece.
struct chain {
    struct fl_load *first;
    struct fl_load **end;
};

static bool ask(struct fl_cache *cache, struct fl_image *image, const struct what *what,
                struct chain *chain)
{
    struct fl_load *new = NULL;
    struct fl_frame *frame = find(cache, what->key);
    if (!frame && has_room(cache, (uint64_t)what->pages * FL_PAGE_SIZE))
        frame = find_or_ask(cache, image, what, &new);
    if (!frame)
        return false;
    if (new) {
        *chain->end = new;
        chain->end = &new->next;
    } else if (atomic_load_explicit(&frame->use, memory_order_relaxed) == FL_FRAME_COLD) {
        fl_frame_touch(frame); // that the hand does not take it before it is used
    }
    return true;
}

static void send(struct fl_cache *cache, const struct chain *chain)
{
    if (chain->first)
        fl_read_ahead_ask(cache->read_ahead, chain->first);
}

uint32_t fl_cache_ahead(struct fl_cache *cache, struct fl_image *image,
                        const struct fl_frame_id *ids, uint32_t count)
{
    struct chain chain = {.end = &chain.first};
    uint32_t begun = 0;
    for (; begun < count; begun++) {
        struct what what = a_frame(image, &ids[begun]);
        if (!ask(cache, image, &what, &chain))
            break;
    }
    send(cache, &chain);
    return begun;
}

uint32_t fl_cache_ahead_huge(struct fl_cache *cache, struct fl_image *image,
                             const uint64_t *first_pages, uint32_t count)
{
    struct chain chain = {.end = &chain.first};
    uint32_t begun = 0;
    for (; begun < count; begun++) {
        struct what what = a_huge_page(image, first_pages[begun]);
        if (!ask(cache, image, &what, &chain))
            break;
    }
    send(cache, &chain);
    return begun;
}

// --- the cache as a whole ---

static int start(struct fl_cache *cache)
{
    cache->table =
        cds_lfht_new(FRAMES_AT_START, FRAMES_AT_START, FRAMES_AT_MOST, CDS_LFHT_AUTO_RESIZE, NULL);
    return cache->table ? fl_read_ahead_start(cache, &cache->read_ahead) : -ENOMEM;
}

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
    fl_cache_clock_init(cache);
    fl_frame_memory_init(&cache->memory);
    int error = start(cache);
    if (error) {
        fl_cache_free(cache);
        return error;
    }
    *ret_cache = cache;
    return 0;
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
        cds_lfht_del(cache->table, &frame->node);
        fl_rcu_defer(&frame->rcu, fl_frame_free_rcu);
    }
    rcu_barrier();
    if (cache->table)
        cds_lfht_destroy(cache->table, NULL);
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
        .reads = atomic_load(&cache->reads),
        .read_errors = atomic_load(&cache->read_errors),
        .failed = atomic_load(&cache->failed),
        .evictions = atomic_load(&cache->evictions),
        .io = cache->io,
        .ahead_waiting = atomic_load(&cache->ahead),
        .ahead_extents = atomic_load(&cache->ahead_extents),
        .ahead_bytes = atomic_load(&cache->ahead_bytes),
        .ahead_frames = atomic_load(&cache->ahead_frames),
        .ahead_errors = atomic_load(&cache->ahead_errors),
        .promoted = atomic_load(&cache->promoted),
    };
}
