// SPDX-License-Identifier: Apache-2.0
//
// Decides where each page of a chunk goes: to a place that is known already, or to a new frame.
// Chunks come in the order of the memory file. One thread at a time.
#ifndef FAULTLINE_SNAPSHOT_DEDUP_H
#define FAULTLINE_SNAPSHOT_DEDUP_H

#include "snapshot/chunk.h"
#include "snapshot/pack_file.h"

// The bound on fragmentation: a range of 2 MiB refers to at most this many frames besides those
// that are written for it. 2 MiB without dedup are 32 frames, so reading a range costs at most
// twice the frames it would have cost, whatever the history of the store.
#define FL_FOREIGN_FRAMES_MAX (FL_CHUNK_PAGES / FL_FRAME_PAGES)
// An engine that serves an image has each of its packs open.
#define FL_FOREIGN_PACKS_MAX 256u

struct fl_dedup;

struct fl_dedup_counts {
    uint64_t zero, duplicate, shared, stored, declined;
    uint64_t inherited; // of shared
};

// The registry must outlive the result. -ENOMEM.
int fl_dedup_new(struct fl_registry *registry, uint64_t own_pack_id, struct fl_dedup **ret_dedup);
void fl_dedup_free(struct fl_dedup *dedup); // NULL is a no-op

// Pages that a chunk inherits are in these packs: `ids` is the table that inherited entries refer
// to, and room is kept for the packs that are `kept`. Both outlive the dedup. Call it before the
// first chunk. -ENOMEM.
int fl_dedup_set_parent(struct fl_dedup *dedup, const uint64_t *ids, const bool *kept,
                        uint32_t count);

// Sets the chunk's entry, fresh and fresh_count. -ENOMEM; -EOVERFLOW: there are more frames than a
// pack can hold; -EBADMSG: damaged frames of the parent would need more packs than an image may
// have.
int fl_dedup_place(struct fl_dedup *dedup, struct fl_chunk *chunk);

struct fl_dedup_counts fl_dedup_counts(const struct fl_dedup *dedup);
// Returns the image's pack table, which is valid until the next chunk is placed.
const uint64_t *fl_dedup_packs(const struct fl_dedup *dedup, uint32_t *ret_count);
// The same without its length, for any thread: what the entries of a placed chunk refer to stays.
const uint64_t *fl_dedup_table(const struct fl_dedup *dedup);

#endif
