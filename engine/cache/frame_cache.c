// SPDX-License-Identifier: Apache-2.0
#include "engine/cache/frame_cache.h"

#include <errno.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/base/crash_point.h"
#include "engine/cache/frame_cache_internal.h"
#include "engine/cache/frame_load.h"
#include "engine/cache/read_ahead.h"

char fl_rcu_edge;

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

static const struct fl_frame *lookup(struct fl_cache *cache, struct fl_key key)
{
    struct fl_frame *frame = find(cache, key);
    if (!frame || !fl_frame_ready(frame))
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

bool fl_frame_is_huge(const struct fl_frame *frame)
{
    return frame->key.at & FL_KEY_HUGE;
}

struct fl_frame *fl_cache_pin(struct fl_cache *cache, struct fl_frame_id id)
{
    fl_rcu_online();
    struct fl_frame *frame = find(cache, frame_key(id));
    if (frame && fl_frame_ready(frame) && fl_frame_pin(frame))
        fl_frame_touch(frame);
    else
        frame = NULL;
    fl_rcu_offline();
    return frame;
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

// What find_or_add() has put into the table, if it has.
struct added {
    bool frame;
    struct fl_load *load; // asked for ahead: with a reference, which is for the read-ahead
};

// The frame in the table, put there LOADING if it was missing. From that moment on any thread may
// find it, hurry it and end its load. So what the caller still has to do with the load it can only
// do by a reference taken before, or as a reader that sees the frame LOADING.
static struct fl_frame *find_or_add(struct fl_cache *cache, struct fl_image *image,
                                    const struct what *what, enum fl_frame_use use,
                                    struct added *ret_added)
{
    struct fl_frame *frame = find(cache, what->key);
    *ret_added = (struct added){.frame = false};
    if (frame)
        return frame;
    frame = new_frame(cache, image, what, use);
    if (!frame)
        return NULL;
    struct fl_load *load = frame->load;
    if (use == FL_FRAME_AHEAD)
        fl_load_ref(load);
    struct cds_lfht_node *there =
        cds_lfht_add_unique(cache->table, hash(what->key), match, &what->key, &frame->node);
    if (there != &frame->node) {
        fl_load_discard(load);
        free(frame);
        return caa_container_of(there, struct fl_frame, node);
    }
    *ret_added = (struct added){.frame = true, .load = use == FL_FRAME_AHEAD ? load : NULL};
    FL_CRASH_POINT("frame_added");
    return frame;
}

// Has a frame that somebody waits for read at once. True if this call did it.
static bool hurry(struct fl_frame *frame)
{
    return atomic_load(&frame->state) == FL_FRAME_LOADING && fl_load_hurry(frame->load);
}

// Somebody waits for it.
static struct fl_frame *find_or_hurry(struct fl_cache *cache, struct fl_image *image,
                                      const struct what *what)
{
    struct added added;
    struct fl_frame *frame = find_or_add(cache, image, what, FL_FRAME_HOT, &added);
    if (frame && hurry(frame) && !added.frame)
        atomic_fetch_add(&cache->promoted, 1);
    return frame;
}

// Nobody waits for it, or not yet: if it is new, *ret_load is for the read-ahead, with a reference,
// else NULL. Counted before it is seen, as it may be used at once.
static struct fl_frame *find_or_ask(struct fl_cache *cache, struct fl_image *image,
                                    const struct what *what, struct fl_load **ret_load)
{
    uint64_t bytes = (uint64_t)what->pages * FL_PAGE_SIZE;
    struct added added;
    atomic_fetch_add(&cache->ahead, bytes);
    struct fl_frame *frame = find_or_add(cache, image, what, FL_FRAME_AHEAD, &added);
    if (!added.frame)
        atomic_fetch_sub(&cache->ahead, bytes);
    *ret_load = added.load;
    return frame;
}

static struct fl_frame *begin(struct fl_cache *cache, struct fl_image *image,
                              const struct what *what, bool wanted)
{
    struct fl_load *load = NULL;
    if (wanted)
        return find_or_hurry(cache, image, what);
    struct fl_frame *frame = find_or_ask(cache, image, what, &load);
    if (load)
        fl_read_ahead_ask(cache->read_ahead, load);
    return frame;
}

static int want(struct fl_cache *cache, struct fl_image *image, const struct what *what,
                bool wanted, struct fl_waiter *waiter, struct fl_frame **ret_frame)
{
    for (;;) {
        struct fl_frame *frame = begin(cache, image, what, wanted);
        if (!frame)
            return -ENOMEM;
        FL_CRASH_POINT("frame_begun");
        if (fl_frame_leave_waiter(frame, waiter))
            return 0;
        FL_CRASH_POINT("frame_closed");
        if (fl_frame_ready(frame) && fl_frame_pin(frame)) {
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

static void hurry_if_there(struct fl_cache *cache, struct fl_key key)
{
    struct fl_frame *frame = find(cache, key);
    if (frame && hurry(frame))
        atomic_fetch_add(&cache->promoted, 1);
}

void fl_cache_hurry(struct fl_cache *cache, struct fl_frame_id id)
{
    hurry_if_there(cache, frame_key(id));
}

void fl_cache_hurry_huge(struct fl_cache *cache, const struct fl_image *image, uint64_t first_page)
{
    hurry_if_there(cache, huge_key(image, first_page));
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
