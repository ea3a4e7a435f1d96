// SPDX-License-Identifier: Apache-2.0
//
// Decides where the pages of a trace go when an image is laid out by it, and computes what it costs
// to replay the trace. Looks at open images and traces only, never at storage. Any thread.
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

// Each page has a slot of its own, also where several pages of the image share a place: sharing
// would break runs of pages that can be installed at once, and would need frames that replay has
// passed already.
struct fl_layout {
    struct fl_hot_page *pages; // in the order of replay; pages[i] goes to slot i of the new pack
    uint64_t count;
};

// Returns the map entry for pages[i], with the new pack at this index of the image's pack table.
static inline uint64_t fl_layout_entry(uint32_t pack, uint64_t i)
{
    return fl_entry(pack, (uint32_t)(i / FL_HOT_FRAME_PAGES), (uint32_t)(i % FL_HOT_FRAME_PAGES));
}

// Makes the layout of the trace's pages. If all of them are zero it is empty. -ENOMEM. Release it
// with fl_layout_free.
int fl_layout_make(const struct fl_image *image, const struct fl_trace *trace,
                   struct fl_layout *ret_layout);
void fl_layout_free(struct fl_layout *layout);

// Returns true if the image has this layout already, in a pack that has nothing else.
bool fl_layout_is(const struct fl_layout *layout, const struct fl_image *image);

// Computes what it costs to replay these pages from an image of the same content, which may have
// another layout. -ENOMEM.
int fl_layout_cost(const struct fl_layout *layout, const struct fl_image *image,
                   struct fl_replay_cost *ret_cost);

// Computes what it will cost once the image has this layout, exactly but for `bytes`, which is an
// estimate: each page is taken to be compressed as well as the frame that it is in now.
void fl_layout_expect(const struct fl_layout *layout, const struct fl_image *image,
                      struct fl_replay_cost *ret_cost);

#endif
