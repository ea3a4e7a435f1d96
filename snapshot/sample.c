// SPDX-License-Identifier: Apache-2.0
#include "snapshot/sample.h"

#include <errno.h>
#include <stdlib.h>

#include "snapshot/encoder.h"
#include "snapshot/io.h"

#define ROOM ((size_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE)

struct fl_sampler {
    struct fl_encoder *encoders[FL_SAMPLE_WAYS_MAX];
    unsigned count;
    uint8_t *bytes, *out; // ROOM each
    struct fl_sample sums;
};

int fl_sampler_new(const struct fl_compression *ways, unsigned count,
                   struct fl_sampler **ret_sampler)
{
    struct fl_sampler *sampler = calloc(1, sizeof(*sampler));
    if (!sampler)
        return -ENOMEM;
    sampler->bytes = fl_map_small_pages(ROOM);
    sampler->out = fl_map_small_pages(ROOM);
    int r = sampler->bytes && sampler->out ? 0 : -ENOMEM;
    while (r == 0 && sampler->count < count) {
        r = fl_encoder_new(ways[sampler->count], &sampler->encoders[sampler->count]);
        sampler->count += r == 0;
    }
    if (r < 0)
        fl_sampler_free(sampler);
    else
        *ret_sampler = sampler;
    return r;
}

void fl_sampler_free(struct fl_sampler *sampler)
{
    if (!sampler)
        return;
    for (unsigned i = 0; i < sampler->count; i++)
        fl_encoder_free(sampler->encoders[i]);
    fl_unmap(sampler->bytes, ROOM);
    fl_unmap(sampler->out, ROOM);
    free(sampler);
}

void fl_sampler_add(struct fl_sampler *sampler, const struct fl_pack *pack, uint32_t frame)
{
    struct fl_disk_frame entry;
    struct fl_disk_frame would;
    if (fl_pack_frame_entry(pack, frame, &entry) < 0 ||
        fl_pack_read_frame(pack, frame, sampler->bytes) < 0)
        return;
    sampler->sums.frames++;
    sampler->sums.bytes += entry.stored;
    for (unsigned i = 0; i < sampler->count; i++) {
        fl_encode(sampler->encoders[i], sampler->bytes, entry.pages, sampler->out, &would);
        sampler->sums.would[i] += would.stored;
    }
}

const struct fl_sample *fl_sampler_sums(const struct fl_sampler *sampler)
{
    return &sampler->sums;
}
