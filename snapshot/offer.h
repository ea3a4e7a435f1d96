// SPDX-License-Identifier: Apache-2.0
//
// An image on offer, of who packs it: from the first of its files to the last (store.h has what the
// caller of fl_store_pack() does with it). The stages of packing use it as they say: `next` takes
// chunks, `write` puts them.
#ifndef FAULTLINE_SNAPSHOT_OFFER_H
#define FAULTLINE_SNAPSHOT_OFFER_H

#include "snapshot/chunk.h"
#include "snapshot/live.h"
#include "snapshot/offer_table.h"
#include "snapshot/store_dir.h"

struct fl_pack_with;

struct fl_offer_plan {
    uint64_t bytes; // of memory
    uint64_t pack_id;
    const char *pack_file;  // in tmp/
    const uint64_t *parent; // pack ids of the parent
    uint32_t parent_packs;
    const struct fl_pack_with *with;
};

// Makes its files: from now on it can be restored. -EEXIST: another process packs an image of one
// of these names. Nothing is left after an error, but for what fl_offer_end() removes.
int fl_offer_begin(struct fl_offer *offer, struct fl_store *store, const struct fl_offer_plan *plan,
                   struct fl_error *ret_error);

// Stage `next`: the chunk that comes next. Blocks until one is there. Errors of the source.
int fl_offer_next(struct fl_offer *offer, const struct fl_pack_live *live, uint64_t *ret_chunk);
// Stage `load`: whether the image may refer to this pack. The list stays as it is.
bool fl_offer_has_pack(const struct fl_offer *offer, uint64_t pack_id);
// Stage `write`: the chunk is packed, and its frames, from number `first_frame` on, are in the
// pack. `packs` is the table that its entries refer to.
int fl_offer_put(struct fl_offer *offer, const struct fl_chunk *chunk, uint32_t first_frame,
                 const uint64_t *packs);
// The new pack has nothing, and no image refers to it: but who opens a name whose image is not
// published yet looks for it. It stays in tmp/ until the offer ends.
void fl_offer_take_pack(struct fl_offer *offer);
// The image `name` is published. The others are published yet.
void fl_offer_published(struct fl_offer *offer, const char *name, const uint8_t *content_id);

#endif
