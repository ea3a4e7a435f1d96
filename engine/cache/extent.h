// SPDX-License-Identifier: Apache-2.0
//
// Which frames one read brings: those whose stored bytes are neighbours on disk. Pure.
#ifndef FAULTLINE_CACHE_EXTENT_H
#define FAULTLINE_CACHE_EXTENT_H

#include <stdint.h>

#include "snapshot/read.h"

enum {
    FL_EXTENT_FRAMES = 64,
    FL_EXTENT_BYTES = 1 << 20, // but for a single frame that is larger
    FL_EXTENT_GAP = 32 << 10,  // between two frames: reading it costs less than another read
};

// Something to be read. `order`: which is to be used first.
struct fl_extent_item {
    struct fl_frame_place place;
    unsigned order;
    void *user;
};

// One read, of the items [first, first + count), all of which lie within it.
struct fl_extent {
    int fd;
    uint32_t bytes;
    uint64_t offset;
    unsigned first;
    unsigned count;
    unsigned order; // of the item that is used first
};

// Sorts the items by their place on disk and joins neighbours; items may overlap. The extents, at
// most `count`, come in the order in which the first of their items is used. Returns how many.
unsigned fl_extents_plan(struct fl_extent_item *item, unsigned count, struct fl_extent *ret_extent);

#endif
