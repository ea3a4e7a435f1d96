// SPDX-License-Identifier: Apache-2.0
#include "engine/cache/frame_table.h"

#include <errno.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/base/crash_point.h"

enum { FRAMES_AT_START = 1024, FRAMES_AT_MOST = 1 << 24 };
enum { DEAD = -1 }; // pins of a frame that was evicted

// --- keys ---

struct fl_key fl_frame_key(struct fl_frame_id id)
{
    return (struct fl_key){.of = {id.pack, 0}, .at = id.frame};
}

struct fl_key fl_huge_key(const struct fl_image *image, uint64_t first_page)
{
    struct fl_image_id id = fl_image_id(image);
    return (struct fl_key){.of = {id.word[0], id.word[1]}, .at = first_page | FL_KEY_HUGE};
}

unsigned long fl_key_hash(struct fl_key key)
{
    uint64_t x = (key.of[0] ^ (key.at << 32 | key.at >> 32) ^ key.at) * 0x9e3779b97f4a7c15ULL;
    return x ^ (x >> 29);
}

static int match_key(struct cds_lfht_node *node, const void *wanted)
{
    const struct fl_frame *frame = caa_container_of(node, struct fl_frame, node);
    const struct fl_key *key = wanted;
    FL_RCU_SEEN(node);
    return frame->key.of[0] == key->of[0] && frame->key.of[1] == key->of[1] &&
           frame->key.at == key->at;
}

// --- the table ---

struct fl_frame *fl_frame_table_find(struct fl_cache *cache, struct fl_key key)
{
    struct cds_lfht_iter iter;
    cds_lfht_lookup(cache->table, fl_key_hash(key), match_key, &key, &iter);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
    return node ? caa_container_of(node, struct fl_frame, node) : NULL;
}

struct fl_frame *fl_frame_table_add(struct fl_cache *cache, struct fl_frame *frame)
{
    FL_RCU_PUBLISH(&frame->node);
    struct cds_lfht_node *there = cds_lfht_add_unique(cache->table, fl_key_hash(frame->key),
                                                      match_key, &frame->key, &frame->node);
    return caa_container_of(there, struct fl_frame, node);
}

void fl_frame_table_remove(struct fl_cache *cache, struct fl_frame *frame)
{
    cds_lfht_del(cache->table, &frame->node);
}

int fl_frame_table_init(struct fl_cache *cache)
{
    cache->table =
        cds_lfht_new(FRAMES_AT_START, FRAMES_AT_START, FRAMES_AT_MOST, CDS_LFHT_AUTO_RESIZE, NULL);
    return cache->table ? 0 : -ENOMEM;
}

void fl_frame_table_fini(struct fl_cache *cache)
{
    if (cache->table)
        cds_lfht_destroy(cache->table, NULL);
}

// --- one frame ---

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

void fl_frame_set_use(struct fl_frame *frame, enum fl_frame_use use)
{
    if (atomic_exchange(&frame->use, use) == FL_FRAME_AHEAD)
        atomic_fetch_sub(&frame->cache->ahead, fl_frame_bytes(frame));
}

// A READY frame without pins may be evicted, which makes it DEAD.
bool fl_frame_pin(struct fl_frame *frame)
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

bool fl_frame_kill_unpinned(struct fl_frame *frame)
{
    int none = 0;
    return atomic_compare_exchange_strong(&frame->pins, &none, DEAD);
}

bool fl_frame_kill_pinned(struct fl_frame *frame)
{
    int ours = 1;
    return atomic_compare_exchange_strong(&frame->pins, &ours, DEAD);
}

struct fl_frame *fl_frame_table_pin(struct fl_cache *cache, struct fl_frame_id id)
{
    fl_rcu_online();
    struct fl_frame *frame = fl_frame_table_find(cache, fl_frame_key(id));
    if (frame && fl_frame_ready(frame) && fl_frame_pin(frame))
        fl_frame_touch(frame);
    else
        frame = NULL;
    fl_rcu_offline();
    return frame;
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
