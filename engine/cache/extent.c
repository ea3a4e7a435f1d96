// SPDX-License-Identifier: Apache-2.0
#include "engine/cache/extent.h"

#include <stdbool.h>
#include <stdlib.h>

static int by_place(const void *a, const void *b)
{
    const struct fl_extent_item *left = a;
    const struct fl_extent_item *right = b;
    if (left->place.fd != right->place.fd)
        return left->place.fd < right->place.fd ? -1 : 1;
    if (left->place.offset != right->place.offset)
        return left->place.offset < right->place.offset ? -1 : 1;
    return left->order < right->order ? -1 : left->order > right->order;
}

static int by_order(const void *a, const void *b)
{
    const struct fl_extent *left = a;
    const struct fl_extent *right = b;
    return left->order < right->order ? -1 : left->order > right->order;
}

static struct fl_extent begin_extent(const struct fl_extent_item *item, unsigned at)
{
    return (struct fl_extent){.fd = item->place.fd,
                              .bytes = item->place.stored,
                              .offset = item->place.offset,
                              .first = at,
                              .count = 1,
                              .order = item->order};
}

static bool join_extent(struct fl_extent *extent, const struct fl_extent_item *item)
{
    uint64_t end = extent->offset + extent->bytes;
    uint64_t item_end = item->place.offset + item->place.stored;
    uint64_t joined = (item_end > end ? item_end : end) - extent->offset;
    if (item->place.fd != extent->fd || item->place.offset > end + FL_EXTENT_GAP ||
        joined > FL_EXTENT_BYTES || extent->count == FL_EXTENT_FRAMES)
        return false;
    extent->bytes = (uint32_t)joined;
    extent->count++;
    if (item->order < extent->order)
        extent->order = item->order;
    return true;
}

unsigned fl_extents_plan(struct fl_extent_item *item, unsigned count, struct fl_extent *ret_extent)
{
    unsigned extents = 0;
    qsort(item, count, sizeof(*item), by_place);
    for (unsigned i = 0; i < count; i++) {
        if (extents == 0 || !join_extent(&ret_extent[extents - 1], &item[i]))
            ret_extent[extents++] = begin_extent(&item[i], i);
    }
    qsort(ret_extent, extents, sizeof(*ret_extent), by_order);
    return extents;
}
