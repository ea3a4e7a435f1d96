// SPDX-License-Identifier: Apache-2.0
//
// A trace made ready for replay: its pages put together by the frame that holds them, the frames in
// the order in which their first page is touched. Immutable, reference-counted; any thread.
#ifndef FAULTLINE_IMAGE_PLAN_H
#define FAULTLINE_IMAGE_PLAN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bitmap.h"
#include "snapshot/read.h"

// Consecutive pages of the image, from consecutive slots of the step's frame.
struct fl_plan_run {
    uint64_t page;
    uint32_t pages;
    uint32_t slot;
};

// What the trace has of one frame, or of zero pages near each other.
struct fl_plan_step {
    struct fl_frame_id id;
    bool zero;
    uint32_t runs;
    uint64_t first_run;
    uint64_t touched;       // place in the trace of the first of its pages
    uint64_t pages_before;  // of the trace, in the steps before
    uint64_t frames_before; // pages of the frames of these steps
};

// References: one is the entry's of its image (images.c) or the cache's (plan_cache.h), under the
// images' lock; one is taken for each replay, by the reader that looks for its plan, goes with the
// order's mail to the VM's worker, and is given up by that worker when the replay ends or never
// begins.
struct fl_plan {
    atomic_uint refs;
    struct fl_trace *trace; // a reference
    uint64_t image_pages;
    uint64_t steps;
    uint64_t runs;
    struct fl_plan_step *step;
    struct fl_plan_run *run;
    uint64_t *has; // bitmap of the image's pages: those of the trace
};

// Takes time, for a trace of many pages; blocks on storage, as it has pieces of the map read. Takes
// a reference of its own to the trace. -ENOMEM.
int fl_plan_new(const struct fl_image *image, struct fl_trace *trace, struct fl_plan **ret_plan);
// Before a plan is used with another open copy of its image: looking at frames of it never blocks
// then. Blocks on storage itself. Errors of reading.
int fl_plan_know(const struct fl_plan *plan, const struct fl_image *image);
struct fl_plan *fl_plan_ref(struct fl_plan *plan);
void fl_plan_unref(struct fl_plan *plan); // NULL is a no-op

// Of memory that it takes, about.
uint64_t fl_plan_bytes(const struct fl_plan *plan);

static inline bool fl_plan_has(const struct fl_plan *plan, uint64_t image_page)
{
    return image_page < plan->image_pages && fl_bit_test(plan->has, image_page);
}

// How many pages from this one on, `most` at most, are in the trace without a gap.
static inline uint32_t fl_plan_row(const struct fl_plan *plan, uint64_t image_page, uint32_t most)
{
    uint32_t pages = 0;
    while (pages < most && fl_plan_has(plan, image_page + pages))
        pages++;
    return pages;
}

#endif
