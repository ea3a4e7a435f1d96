// SPDX-License-Identifier: Apache-2.0
//
// The stages for a chunk of a live source (live.h): wait for its pages, and read those that came.
#ifndef FAULTLINE_SNAPSHOT_PACK_LIVE_H
#define FAULTLINE_SNAPSHOT_PACK_LIVE_H

#include "snapshot/pack_run.h"

int fl_live_next(struct fl_pack_run *run, struct fl_chunk *chunk);
// Waits until an image on offer may be published.
int fl_live_settle(struct fl_pack_run *run);
// True if the next chunk is there as well, and the batch has room for it and little to do.
bool fl_live_more(const struct fl_pack_run *run, const struct fl_batch *batch);
int fl_live_read(struct fl_pack_run *run, struct fl_chunk *chunk,
                 const struct fl_pack_worker *worker);

#endif
