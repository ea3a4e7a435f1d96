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
// A page that comes twice is stored once, if no more than so many others are between.
#define FL_HOT_SHARE_PAGES (UINT64_C(4) * FL_TRACE_WINDOW)

// A page of the trace that is not zero.
struct fl_hot_page {
    uint64_t page;
    uint64_t entry;  // in the image's map
    uint64_t number; // in the new pack: frame number / FL_HOT_FRAME_PAGES, slot what is left over
};

struct fl_layout {
    struct fl_hot_page *pages; // in the order of replay
    uint64_t count;
    uint64_t numbers; // at most count: pages that the image has in one place share one here, too
};

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
