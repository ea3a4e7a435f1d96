// SPDX-License-Identifier: Apache-2.0
//
// Groups the pages of a chunk that are stored already (the hits) by the frame that they are in: an
// image that takes few pages from each of many frames is slow to read.
#ifndef FAULTLINE_SNAPSHOT_HITS_H
#define FAULTLINE_SNAPSHOT_HITS_H

#include <stdint.h>

#include "snapshot/read.h"

struct fl_hit {
    struct fl_frame_id id;
    uint16_t slot;
    uint16_t page; // of the chunk
};

struct fl_hit_group {
    uint16_t first; // hit
    uint16_t count;
};

// Sorts the hits by frame and page. `groups` must have room for `count` groups; the largest comes
// first, and groups of equal size keep the order of the hits, so that two runs give the same
// result. Returns the number of groups.
uint32_t fl_group_hits(struct fl_hit *hits, uint32_t count, struct fl_hit_group *groups);

#endif
