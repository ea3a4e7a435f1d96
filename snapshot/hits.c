// SPDX-License-Identifier: Apache-2.0
#include "snapshot/hits.h"

#include <stdbool.h>
#include <stdlib.h>

static int compare_hits(const void *a, const void *b)
{
    const struct fl_hit *left = a;
    const struct fl_hit *right = b;
    if (left->id.pack != right->id.pack)
        return left->id.pack < right->id.pack ? -1 : 1;
    if (left->id.frame != right->id.frame)
        return left->id.frame < right->id.frame ? -1 : 1;
    return left->page < right->page ? -1 : 1;
}

static int compare_groups(const void *a, const void *b)
{
    const struct fl_hit_group *left = a;
    const struct fl_hit_group *right = b;
    if (left->count != right->count)
        return left->count > right->count ? -1 : 1;
    return left->first < right->first ? -1 : 1;
}

static bool same_frame(struct fl_frame_id a, struct fl_frame_id b)
{
    return a.pack == b.pack && a.frame == b.frame;
}

uint32_t fl_group_hits(struct fl_hit *hits, uint32_t count, struct fl_hit_group *groups)
{
    uint32_t groups_count = 0;
    if (count == 0)
        return 0;
    qsort(hits, count, sizeof(*hits), compare_hits);
    for (uint32_t i = 0; i < count; i++) {
        if (i == 0 || !same_frame(hits[i].id, hits[i - 1].id))
            groups[groups_count++] = (struct fl_hit_group){.first = (uint16_t)i};
        groups[groups_count - 1].count++;
    }
    qsort(groups, groups_count, sizeof(*groups), compare_groups);
    return groups_count;
}
