// SPDX-License-Identifier: Apache-2.0
//
// A set of frames that were found bad, and whom that hurts. One thread at a time.
#ifndef FAULTLINE_SNAPSHOT_BAD_FRAMES_H
#define FAULTLINE_SNAPSHOT_BAD_FRAMES_H

#include <stddef.h>
#include <stdint.h>

#include "snapshot/image.h"

struct fl_bad_frames {
    struct fl_frame_id *ids;
    size_t count, room;
};

// May come more than once. -ENOMEM.
int fl_bad_frames_add(struct fl_bad_frames *bad, struct fl_frame_id id);
// After the last one was added, before the first question.
void fl_bad_frames_sort(struct fl_bad_frames *bad);
// Sorted: NULL if it is not one of them.
const struct fl_frame_id *fl_bad_frames_find(const struct fl_bad_frames *bad,
                                             struct fl_frame_id id);
// How many pages of the image are in bad frames, and the pack of the first of them.
uint64_t fl_bad_frames_pages(const struct fl_bad_frames *bad, const struct fl_image *image,
                             uint64_t *ret_pack);
void fl_bad_frames_free(struct fl_bad_frames *bad);

#endif
