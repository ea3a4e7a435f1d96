// SPDX-License-Identifier: Apache-2.0
//
// A page of 2 MiB is put together from the frames of 512 pages of 4 KiB.
#include "engine/resolve.h"

#include <string.h>

#include "engine/vm.h"
#include "engine/worker.h"

enum { HUGE_UNITS = 512 };

// The runs of a huge page, up to the image's end; what lies beyond is zero.
struct huge {
    uint32_t runs;
    bool zero; // all of it
    struct fl_run run[HUGE_UNITS];
};

static void look_up_huge(const struct fl_want *want, struct huge *huge)
{
    uint64_t first = fl_layout_image_page(&want->vm->state->layout, want->page);
    uint64_t end = fl_image_pages(want->vm->image);
    uint32_t at = 0;
    huge->runs = 0;
    huge->zero = true;
    while (at < HUGE_UNITS) {
        struct fl_run *run = &huge->run[huge->runs++];
        if (first + at < end)
            *run = fl_image_run(want->vm->image, first + at, HUGE_UNITS - at);
        else
            *run = (struct fl_run){.zero = true, .pages = HUGE_UNITS - at};
        huge->zero = huge->zero && run->zero;
        at += run->pages;
    }
}

static bool same(struct fl_frame_id a, struct fl_frame_id b)
{
    return a.pack == b.pack && a.frame == b.frame;
}

// The distinct frames of the runs; the last ones first, as neighbours mostly share.
static uint32_t frames_of(const struct huge *huge, struct fl_frame_id *ids)
{
    uint32_t frames = 0;
    for (uint32_t i = 0; i < huge->runs; i++) {
        uint32_t k = huge->run[i].zero ? 0 : frames;
        while (k > 0 && !same(ids[k - 1], huge->run[i].id))
            k--;
        if (k == 0 && !huge->run[i].zero)
            ids[frames++] = huge->run[i].id;
    }
    return frames;
}

static bool assemble(const struct fl_want *want, const struct huge *huge)
{
    uint8_t *to = want->worker->staging;
    for (uint32_t i = 0; i < huge->runs; i++) {
        const struct fl_run *run = &huge->run[i];
        size_t length = (size_t)run->pages << FL_PAGE_SHIFT;
        const uint8_t *data = run->zero ? NULL : fl_want_find(want, run->id);
        if (!run->zero && !data)
            return false;
        if (data)
            memcpy(to, data + ((size_t)run->slot << FL_PAGE_SHIFT), length);
        else
            memset(to, 0, length);
        to += length;
    }
    return true;
}

enum fl_outcome fl_resolve_huge(struct fl_want *want)
{
    struct huge huge;
    look_up_huge(want, &huge);
    if (huge.zero)
        return fl_want_zeros(want);
    if (!assemble(want, &huge)) {
        struct fl_frame_id ids[HUGE_UNITS];
        return fl_want_frames(want, ids, frames_of(&huge, ids));
    }
    fl_counter_add(&want->worker->stats.hits, !want->park);
    return fl_want_bytes(want, want->worker->staging);
}
