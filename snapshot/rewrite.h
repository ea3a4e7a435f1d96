// SPDX-License-Identifier: Apache-2.0
//
// Rewrites packs, and gives the images that need them new maps: what recompressing and compacting
// have in common. Each pack is written once, whatever the number of its images. It goes group by
// group: the new packs are published, then each image is replaced by one with the same content, as
// `optimize` does it, then the index learns the new places. A kill leaves each image with its old
// map or its new one, packs that no image needs, and a list of what was moved (move_list.h), by
// which the next run gives the other images the same packs. The old packs stay: who has an image
// open, or is packing a child of it, needs them. gc removes them.
//
// One thread. The caller holds the store's lock, shared.
#ifndef FAULTLINE_SNAPSHOT_REWRITE_H
#define FAULTLINE_SNAPSHOT_REWRITE_H

#include "snapshot/needed.h"
#include "snapshot/pace.h"
#include "snapshot/recode.h"

struct fl_rewrite {
    struct fl_store *store;
    struct fl_needed *needed;
    struct fl_compression compression; // codec FL_CODEC_RAW: each pack keeps its own
    unsigned threads;
    struct fl_pace pace;
    const struct fl_progress *progress;
    struct fl_rewrite_result *result;
    uint64_t done, total; // stored bytes of the packs
};

// Rewrites the packs, which are of `needed`. -ECANCELED, -ENOMEM, errors of writing: what was
// published before stays.
int fl_rewrite_packs(struct fl_rewrite *rewrite, struct fl_needed_pack *const *packs, size_t count);
// Ends what a process that was killed had begun: images that need what it has moved get new maps,
// after which `needed` is out of date. Errors likewise; the next run can try again.
int fl_rewrite_resume(struct fl_rewrite *rewrite);

#endif
