// SPDX-License-Identifier: Apache-2.0
//
// Where each page of a chunk goes: to a place that is known already, or to a new frame. Chunks come
// in the order of the memory file; one thread at a time.
#ifndef FAULTLINE_SNAPSHOT_DEDUP_H
#define FAULTLINE_SNAPSHOT_DEDUP_H

#include "snapshot/chunk.h"
#include "snapshot/pack_file.h"

// The bound on fragmentation: a range of 2 MiB refers to at most this many frames besides those
// that are written for it. 2 MiB without dedup are 32 frames, so reading a range costs at most
// twice the frames it would have cost, whatever the history of the store.
#define FL_FOREIGN_FRAMES_MAX (FL_CHUNK_PAGES / FL_FRAME_PAGES)
// Each pack of an image is an open file of whoever serves it.
#define FL_FOREIGN_PACKS_MAX 256u

struct fl_dedup;

struct fl_dedup_counts {
    uint64_t zero, duplicate, shared, stored, declined;
};

// pages: of the whole input. The registry must outlive it.
int fl_dedup_new(struct fl_registry *registry, uint64_t own_pack_id, uint64_t pages,
                 struct fl_dedup **ret_dedup);
void fl_dedup_free(struct fl_dedup *dedup); // NULL is allowed

// Sets the chunk's entry, fresh and fresh_count. -ENOMEM; -EOVERFLOW: more frames than a pack can
// hold.
int fl_dedup_place(struct fl_dedup *dedup, struct fl_chunk *chunk);

struct fl_dedup_counts fl_dedup_counts(const struct fl_dedup *dedup);
// The image's pack table. Valid until the next chunk is placed.
const uint64_t *fl_dedup_packs(const struct fl_dedup *dedup, uint32_t *ret_count);

#endif
