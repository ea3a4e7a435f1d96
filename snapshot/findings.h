// SPDX-License-Identifier: Apache-2.0
//
// Keeps the bad frames that a verification has found until it is known whether an image needs them.
// A frame that repair has replaced may stay behind in a pack: it hurts no image and is not
// reported.
#ifndef FAULTLINE_SNAPSHOT_FINDINGS_H
#define FAULTLINE_SNAPSHOT_FINDINGS_H

#include "snapshot/bad_frames.h"
#include "snapshot/store_dir.h"

struct fl_finding {
    struct fl_frame_id id;
    char problem[96];
};

// One thread at a time.
struct fl_findings {
    struct fl_finding *items;
    size_t count, room;
    struct fl_bad_frames bad; // their frames
};

// Adds a bad frame, with a sentence about it. -ENOMEM: it is not kept.
__attribute__((format(printf, 3, 4))) int
fl_findings_add(struct fl_findings *findings, struct fl_frame_id id, const char *format, ...);

// Call it after the last fl_findings_add. Calls `report` for the frames that an image needs or may
// need, sorted. Writes all of them to the store's list of bad frames, in the place of its entries
// for these packs. *ret_unneeded is the number of frames that no image needs. *ret_list_written is
// false if the list could not be written, which does no harm. -ENOMEM, errors of listing images.
int fl_findings_settle(struct fl_findings *findings, struct fl_store *store, const uint64_t *packs,
                       size_t packs_count, void (*report)(void *arg, const struct fl_finding *),
                       void *arg, uint64_t *ret_unneeded, bool *ret_list_written);
void fl_findings_free(struct fl_findings *findings);

#endif
