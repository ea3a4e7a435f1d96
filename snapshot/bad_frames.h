// SPDX-License-Identifier: Apache-2.0
//
// A set of frames that were found bad, and which images and pages that hurts. One thread at a time.
#ifndef FAULTLINE_SNAPSHOT_BAD_FRAMES_H
#define FAULTLINE_SNAPSHOT_BAD_FRAMES_H

#include <stddef.h>
#include <stdint.h>

#include "snapshot/image.h"

struct fl_bad_frames {
    struct fl_frame_id *ids;
    size_t count, room;
};

// Adds a frame; it may be added more than once. -ENOMEM.
int fl_bad_frames_add(struct fl_bad_frames *bad, struct fl_frame_id id);
// Call it after the last fl_bad_frames_add and before the functions below.
void fl_bad_frames_sort(struct fl_bad_frames *bad);
// Returns the frame in the sorted set; NULL if it is not in the set.
const struct fl_frame_id *fl_bad_frames_find(const struct fl_bad_frames *bad,
                                             struct fl_frame_id id);
// Returns how many pages of the image are in bad frames, and in *ret_pack the pack of the first.
uint64_t fl_bad_frames_pages(const struct fl_bad_frames *bad, const struct fl_image *image,
                             uint64_t *ret_pack);
void fl_bad_frames_free(struct fl_bad_frames *bad);

#endif
