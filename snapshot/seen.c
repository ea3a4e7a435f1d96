// SPDX-License-Identifier: Apache-2.0
#include "snapshot/seen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/io.h"

// 2^23 pages, 320 MiB: never full for inputs up to 16 GiB of data, and a bound for all others.
#define PAGES_MAX (UINT64_C(1) << 23)
#define WAYS 8u // a bucket is searched from end to end
// It grows with what is put into it: a child of an image may have few pages of its own.
#define WAYS_MIN (UINT64_C(1) << 12)

struct way {
    struct fl_identity identity;
    uint32_t frame;
    uint16_t slot;
    uint16_t used;
};

struct fl_seen {
    uint64_t buckets; // a power of two
    uint64_t used;    // ways
    struct way *ways;
};

static int make_ways(struct fl_seen *seen, uint64_t ways)
{
    seen->buckets = ways / WAYS;
    seen->used = 0;
    seen->ways = fl_map_memory(ways * sizeof(struct way));
    return seen->ways ? 0 : -ENOMEM;
}

int fl_seen_new(struct fl_seen **ret_seen)
{
    struct fl_seen *seen = malloc(sizeof(*seen));
    if (!seen)
        return -ENOMEM;
    if (make_ways(seen, WAYS_MIN) < 0) {
        free(seen);
        return -ENOMEM;
    }
    *ret_seen = seen;
    return 0;
}

void fl_seen_free(struct fl_seen *seen)
{
    if (!seen)
        return;
    fl_unmap(seen->ways, seen->buckets * WAYS * sizeof(struct way));
    free(seen);
}

// An identity is as good as random already; a guest that makes buckets collide only hurts its own
// dedup.
static struct way *bucket_of(const struct fl_seen *seen, const struct fl_identity *identity)
{
    uint64_t number;
    memcpy(&number, identity->bytes, sizeof(number));
    return seen->ways + (number & (seen->buckets - 1)) * WAYS;
}

static struct way *find(struct way *bucket, const struct fl_identity *identity)
{
    for (uint32_t i = 0; i < WAYS && bucket[i].used; i++) {
        if (memcmp(&bucket[i].identity, identity, sizeof(*identity)) == 0)
            return &bucket[i];
    }
    return NULL;
}

bool fl_seen_get(const struct fl_seen *seen, const struct fl_identity *identity,
                 uint32_t *ret_frame, uint32_t *ret_slot)
{
    const struct way *way = find(bucket_of(seen, identity), identity);
    if (!way)
        return false;
    *ret_frame = way->frame;
    *ret_slot = way->slot;
    return true;
}

static void put(struct fl_seen *seen, const struct way *put)
{
    struct way *bucket = bucket_of(seen, &put->identity);
    struct way *way = find(bucket, &put->identity);
    for (uint32_t i = 0; !way && i < WAYS; i++) {
        if (!bucket[i].used)
            way = &bucket[i];
    }
    if (!way) // full: another identity gives way, a different one each time
        way = &bucket[put->identity.bytes[8] % WAYS];
    seen->used += !way->used;
    *way = *put;
}

// At three eighths few buckets are full. Without memory it stays as it is.
static void grow(struct fl_seen *seen)
{
    uint64_t ways = seen->buckets * WAYS;
    struct fl_seen grown;
    if (seen->used < ways / 8 * 3 || ways >= PAGES_MAX || make_ways(&grown, ways * 2) < 0)
        return;
    for (uint64_t i = 0; i < ways; i++) {
        if (seen->ways[i].used)
            put(&grown, &seen->ways[i]);
    }
    fl_unmap(seen->ways, ways * sizeof(struct way));
    *seen = grown;
}

void fl_seen_put(struct fl_seen *seen, const struct fl_identity *identity, uint32_t frame,
                 uint32_t slot)
{
    grow(seen);
    put(seen,
        &(struct way){.identity = *identity, .frame = frame, .slot = (uint16_t)slot, .used = 1});
}
