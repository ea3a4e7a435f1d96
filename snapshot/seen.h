// SPDX-License-Identifier: Apache-2.0
//
// The pages that this run of pack has stored already. It grows with them up to a bound: with a
// large input it forgets some pages, which costs dedup and nothing else. One thread at a time.
#ifndef FAULTLINE_SNAPSHOT_SEEN_H
#define FAULTLINE_SNAPSHOT_SEEN_H

#include "snapshot/format.h"

struct fl_seen;

int fl_seen_new(struct fl_seen **ret_seen); // -ENOMEM
void fl_seen_free(struct fl_seen *seen);    // NULL is a no-op
bool fl_seen_get(const struct fl_seen *seen, const struct fl_identity *identity,
                 uint32_t *ret_frame, uint32_t *ret_slot);
// Sets the place of a page; a page that is known already gets this place.
void fl_seen_put(struct fl_seen *seen, const struct fl_identity *identity, uint32_t frame,
                 uint32_t slot);

#endif
