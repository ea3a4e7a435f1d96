// SPDX-License-Identifier: Apache-2.0
//
// Writes the needed pages of a pack to a new pack, with another codec or without the pages that no
// image needs any more, and remembers where each has gone. The needed pages of a frame stay
// together, beside those of its neighbours where they fit in, so no part of an image needs more
// frames than before. Every page is compared with its identity on the way; a frame that is damaged
// stays where it is.
#ifndef FAULTLINE_SNAPSHOT_RECODE_H
#define FAULTLINE_SNAPSHOT_RECODE_H

#include "snapshot/needed.h"
#include "snapshot/pace.h"

struct fl_recode_options {
    struct fl_compression compression;
    bool keep; // a frame that is needed as it is gets copied as it is stored
    unsigned threads;
    struct fl_pace *pace; // of the bytes that are read and written
    uint64_t done, total; // for progress: stored bytes
    const struct fl_progress *progress;
};

// Where a frame's needed pages are now: its first one's frame and slot of the new pack.
struct fl_moved_frame {
    uint32_t frame; // UINT32_MAX: it stays
    uint32_t slot;
};

struct fl_move {
    struct fl_pack *from; // a reference
    const uint64_t *bits; // of the needed pages
    uint64_t *own_bits;   // the same, if they are not those of an fl_needed_pack; else NULL
    struct fl_moved_frame *frames;
    uint64_t pack_id;    // of the new pack, which is published; 0: nothing could be moved
    uint64_t bytes;      // of the new pack's file
    uint64_t pages;      // in it
    uint64_t bad_frames; // that stay
    uint64_t users;      // images that have been given it
};

// `needed` must outlive the result. -ECANCELED, -ENOMEM, errors of writing.
int fl_recode(struct fl_store *store, const struct fl_needed_pack *needed,
              const struct fl_recode_options *options, struct fl_move *ret_move);
void fl_move_end(struct fl_move *move);

// Returns the entry of a page of the old pack in a map in which the new pack has the number `pack`;
// 0: it stays where it is.
uint64_t fl_move_entry(const struct fl_move *move, uint64_t entry, uint32_t pack);

// What frames of this pack are compressed with, at a level that is worth it for what is kept long.
struct fl_compression fl_recode_same(const struct fl_pack *pack);

#endif
