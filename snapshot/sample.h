// SPDX-License-Identifier: Apache-2.0
//
// Compresses some frames in another way, to learn what all of them would take.
#ifndef FAULTLINE_SNAPSHOT_SAMPLE_H
#define FAULTLINE_SNAPSHOT_SAMPLE_H

#include "snapshot/pack_file.h"

#define FL_SAMPLE_FRAMES 32u
#define FL_SAMPLE_WAYS_MAX 8u

struct fl_sampler; // one thread at a time

// The sums over the frames that were sampled.
struct fl_sample {
    uint64_t frames, bytes; // as they are stored now
    uint64_t would[FL_SAMPLE_WAYS_MAX];
};

int fl_sampler_new(const struct fl_compression *ways, unsigned count,
                   struct fl_sampler **ret_sampler);
void fl_sampler_free(struct fl_sampler *sampler); // NULL is a no-op
// Adds a frame to the sums. One that cannot be read counts for nothing.
void fl_sampler_add(struct fl_sampler *sampler, const struct fl_pack *pack, uint32_t frame);
const struct fl_sample *fl_sampler_sums(const struct fl_sampler *sampler);

#endif
