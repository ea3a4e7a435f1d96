// SPDX-License-Identifier: Apache-2.0
#include "snapshot/seen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/io.h"

// 2^23 pages, 320 MiB: never full for inputs up to 16 GiB of data, and a bound for all others.
#define PAGES_MAX (UINT64_C(1) << 23)
#define WAYS 8u // a bucket is searched from end to end

struct way {
    struct fl_identity identity;
    uint32_t frame;
    uint16_t slot;
    uint16_t used;
};

struct fl_seen {
    uint64_t buckets; // a power of two
    struct way *ways;
};

int fl_seen_new(uint64_t pages, struct fl_seen **ret_seen)
{
    struct fl_seen *seen = malloc(sizeof(*seen));
    if (!seen)
        return -ENOMEM;
    uint64_t wanted = 1024;
    while (wanted < pages * 2 && wanted < PAGES_MAX)
        wanted *= 2;
    seen->buckets = wanted / WAYS;
    seen->ways = fl_map_memory(wanted * sizeof(struct way));
    if (!seen->ways) {
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

void fl_seen_put(struct fl_seen *seen, const struct fl_identity *identity, uint32_t frame,
                 uint32_t slot)
{
    struct way *bucket = bucket_of(seen, identity);
    struct way *way = find(bucket, identity);
    for (uint32_t i = 0; !way && i < WAYS; i++) {
        if (!bucket[i].used)
            way = &bucket[i];
    }
    if (!way) // full: another identity gives way, a different one each time
        way = &bucket[identity->bytes[8] % WAYS];
    *way = (struct way){
        .identity = *identity,
        .frame = frame,
        .slot = (uint16_t)slot,
        .used = 1,
    };
}
