// SPDX-License-Identifier: Apache-2.0
//
// Bringing a frame, or a page of 2 MiB, into memory.
//
// A load has parts: a frame is one, a page of 2 MiB has one for each frame that it takes bytes
// from. Each part is brought once, by the thread that takes it first: by a reader thread when a VM
// waits for it, or by a helper of the read-ahead when its extent has come. So what was asked for
// ahead can be hurried at any time. The thread that ends the last part ends the load.
//
// A frame outlives its load's last part.
#ifndef FAULTLINE_CACHE_FRAME_LOAD_H
#define FAULTLINE_CACHE_FRAME_LOAD_H

#include <stdbool.h>

#include "engine/cache/frame_part.h"
#include "engine/cache/frame_table.h"
#include "snapshot/read.h"

// For a frame that is not yet published, with the loading's own reference.
// For a frame of a pack `id` says which; NULL: a page of 2 MiB, by its key. NULL without memory.
struct fl_load *fl_load_new(struct fl_frame *frame, struct fl_image *image,
                            const struct fl_frame_id *id);
// Before it was published.
void fl_load_discard(struct fl_load *load);

// RCU reader, on the load of a frame that it has seen LOADING: false if that is over.
bool fl_load_ref(struct fl_load *load);
// Pool or read-ahead thread, RCU offline.
void fl_load_unref(struct fl_load *load);

// RCU reader, never blocks: has what is not yet taken read at once, ahead of all that no thread
// waits for. True if this call did it.
bool fl_load_hurry(struct fl_load *load);

// The read-ahead. Finds the parts; false if another thread does, or there is no memory: then they
// are the reader threads' now.
bool fl_load_plan(struct fl_load *load);
// Pool thread. Brings the part unless it was taken: from its stored bytes, or NULL: reads it.
// True if this call did it.
bool fl_part_bring(struct fl_part *part, const void *stored);
// The read-ahead ends: fails the part unless it was taken.
void fl_part_cancel(struct fl_part *part);

#endif
