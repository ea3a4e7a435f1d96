// SPDX-License-Identifier: Apache-2.0
//
// Where the pages of a trace go when an image is laid out by it, and what replaying the trace
// costs. Pure: reads open images and traces, never storage. Any thread.
#ifndef FAULTLINE_SNAPSHOT_LAYOUT_H
#define FAULTLINE_SNAPSHOT_LAYOUT_H

#include "snapshot/image.h"
#include "snapshot/store.h"

// Pages of a frame of the working set (docs/benchmarks.md, "Frame sizes").
#define FL_HOT_FRAME_PAGES 16u

// A page of the trace that is not zero.
struct fl_hot_page {
    uint64_t page;
    uint64_t entry; // in the image's map
};

// Each page has a slot of its own, also where the image has several in one place: sharing would
// break runs of pages that can be installed at once, and ask for frames that replay has left
// behind.
struct fl_layout {
    struct fl_hot_page *pages; // in the order of replay; slot `i` of the new pack is for number i
    uint64_t count;
};

// The entry of number `i`, with the new pack at this index of the image's pack table.
static inline uint64_t fl_layout_entry(uint32_t pack, uint64_t i)
{
    return fl_entry(pack, (uint32_t)(i / FL_HOT_FRAME_PAGES), (uint32_t)(i % FL_HOT_FRAME_PAGES));
}

// -ENOMEM. Release with fl_layout_free. A trace of zero pages alone makes an empty one.
int fl_layout_make(const struct fl_image *image, const struct fl_trace *trace,
                   struct fl_layout *ret_layout);
void fl_layout_free(struct fl_layout *layout);

// True if the image is laid out in this way already, in a pack of nothing else.
bool fl_layout_is(const struct fl_layout *layout, const struct fl_image *image);

// The cost of replaying these pages from an image of the same content, whatever its layout.
// -ENOMEM.
int fl_layout_cost(const struct fl_layout *layout, const struct fl_image *image,
                   struct fl_replay_cost *ret_cost);

#endif
