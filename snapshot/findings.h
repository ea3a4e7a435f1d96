// SPDX-License-Identifier: Apache-2.0
//
// The bad frames that a verification has found, kept until it is known whether an image needs them:
// what repair has left behind in a pack that stays hurts no image, and is not damage to be told of.
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

// -ENOMEM: it is not kept.
__attribute__((format(printf, 3, 4))) int
fl_findings_add(struct fl_findings *findings, struct fl_frame_id id, const char *format, ...);

// After the last one: calls `report` for those that an image needs or may need, sorted, and has the
// store remember all of them, instead of what it has known of these packs. *ret_unneeded: the
// frames that no image needs. An error of writing the list, which does no harm: *ret_list_written
// is false then. -ENOMEM, errors of listing images.
int fl_findings_settle(struct fl_findings *findings, struct fl_store *store, const uint64_t *packs,
                       size_t packs_count, void (*report)(void *arg, const struct fl_finding *),
                       void *arg, uint64_t *ret_unneeded, bool *ret_list_written);
void fl_findings_free(struct fl_findings *findings);

#endif
