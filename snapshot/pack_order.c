// SPDX-License-Identifier: Apache-2.0
#include "snapshot/pack_order.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// What is kept of a chunk.
struct kept {
    bool hole;
    uint32_t parent_pages;
    struct fl_identity identity[FL_CHUNK_PAGES];
    struct fl_identity parent_identity[FL_CHUNK_PAGES];
    uint64_t entry[FL_CHUNK_PAGES];
};

struct fl_pack_order {
    uint64_t pages;
    uint64_t chunks;
    uint64_t next; // the chunk that comes next
    struct kept **kept;
    struct fl_chunk chunk; // one that is given back; only what is kept means something
};

int fl_pack_order_new(uint64_t pages, struct fl_pack_order **ret_order)
{
    struct fl_pack_order *order = calloc(1, sizeof(*order));
    if (!order)
        return -ENOMEM;
    order->pages = pages;
    order->chunks = (pages + FL_CHUNK_PAGES - 1) / FL_CHUNK_PAGES;
    order->kept = calloc(order->chunks, sizeof(struct kept *));
    if (!order->kept) {
        free(order);
        return -ENOMEM;
    }
    *ret_order = order;
    return 0;
}

void fl_pack_order_free(struct fl_pack_order *order)
{
    for (uint64_t i = 0; order && i < order->chunks; i++)
        free(order->kept[i]);
    if (order)
        free(order->kept);
    free(order);
}

static int keep(struct fl_pack_order *order, uint64_t number, const struct fl_chunk *chunk)
{
    struct kept *kept = malloc(sizeof(*kept));
    if (!kept)
        return -ENOMEM;
    kept->hole = chunk->hole;
    kept->parent_pages = chunk->parent_pages;
    memcpy(kept->identity, chunk->identity, sizeof(kept->identity));
    memcpy(kept->parent_identity, chunk->parent_identity, sizeof(kept->parent_identity));
    memcpy(kept->entry, chunk->entry, sizeof(kept->entry));
    order->kept[number] = kept;
    return 0;
}

static int give_back(struct fl_pack_order *order, fl_in_order *fn, void *arg)
{
    struct kept *kept = order->kept[order->next];
    struct fl_chunk *chunk = &order->chunk;
    uint64_t left = order->pages - order->next * FL_CHUNK_PAGES;
    chunk->first_page = order->next * FL_CHUNK_PAGES;
    chunk->pages = left < FL_CHUNK_PAGES ? left : FL_CHUNK_PAGES;
    chunk->hole = kept->hole;
    chunk->parent_pages = kept->parent_pages;
    memcpy(chunk->identity, kept->identity, sizeof(kept->identity));
    memcpy(chunk->parent_identity, kept->parent_identity, sizeof(kept->parent_identity));
    memcpy(chunk->entry, kept->entry, sizeof(kept->entry));
    free(kept);
    order->kept[order->next++] = NULL;
    return fn(arg, chunk);
}

int fl_pack_order_add(struct fl_pack_order *order, const struct fl_chunk *chunk, fl_in_order *fn,
                      void *arg)
{
    uint64_t number = chunk->first_page / FL_CHUNK_PAGES;
    if (number >= order->chunks || order->kept[number] || number < order->next)
        return -EPROTO;
    if (number > order->next)
        return keep(order, number, chunk);
    order->next++;
    int r = fn(arg, chunk);
    while (r == 0 && order->next < order->chunks && order->kept[order->next])
        r = give_back(order, fn, arg);
    return r;
}
