// SPDX-License-Identifier: Apache-2.0
//
// An open image, for the files of snapshot/ that need more of it than read.h gives.
#ifndef FAULTLINE_SNAPSHOT_IMAGE_H
#define FAULTLINE_SNAPSHOT_IMAGE_H

#include <stdatomic.h>

#include "snapshot/format.h"
#include "snapshot/lazy.h"
#include "snapshot/offer_table.h"
#include "snapshot/pack_file.h"

struct fl_image {
    atomic_uint refs;
    int fd; // the image's file, set once before the image is handed out; -1: a raw file's image
    // Immutable from the time the image is open.
    struct fl_image_id id;
    struct fl_disk_image_header header; // of a raw file: name, bytes and pages only
    uint64_t entries;                   // of the map: header.pages, then the pages of companions
    struct fl_disk_map_piece *piece;    // header.pieces, by number; NULL: the map is all there
    uint64_t map_id;                    // pieces of the map are frames of this pack
    struct fl_pack **packs;             // in the order of the pack table
    struct fl_pack **by_id;             // the same, sorted by id
    // What is there has been checked against the packs, and does not change.
    struct fl_lazy map;
    uint32_t piece_entries; // of a piece of the map
    // Of an image on offer, which is still being packed: where its map comes from, and whether it
    // was seen to be published; header.content_id is set before that is. NULL: of all others.
    struct fl_offer_table *offer;
    atomic_bool published;
};

// Makes an image that has no file of its own yet. `entries` is the length of the map. Takes over
// the map (from fl_map_memory), the array packs (from malloc) and its references, also on an error.
// -EBADMSG: an entry points to a page that its pack does not have.
int fl_image_new(const struct fl_disk_image_header *header, uint64_t entries, uint64_t *map,
                 struct fl_pack **packs, struct fl_image **ret_image);
// Makes an image whose map is read from its file piece by piece, when a piece is needed. Takes over
// piece (from malloc; header->pieces of them) as well.
int fl_image_new_lazy(const struct fl_disk_image_header *header, uint64_t entries,
                      struct fl_disk_map_piece *piece, struct fl_pack **packs,
                      struct fl_image **ret_image);

// Makes an image on offer. Takes over the table (from malloc; its descriptor, too) and the packs.
int fl_image_new_offered(const struct fl_disk_image_header *header, struct fl_offer_table *offer,
                         struct fl_pack **packs, struct fl_image **ret_image);

// Pages from header.pages on are those of companions, in the order of their list: to the functions
// here and to fl_image_run() they are pages as the others are.
//
// Call these two only where the map was read (fl_image_read_map). fl_image_entry returns the entry
// of a page; fl_image_skip_zero returns the first page from `page` on whose piece of the map is not
// all zero, or `entries`.
uint64_t fl_image_entry(const struct fl_image *image, uint64_t page);
uint64_t fl_image_skip_zero(const struct fl_image *image, uint64_t page);
// Returns a copy of all entries, in memory of fl_map_memory; NULL if there is no memory.
uint64_t *fl_image_copy_map(const struct fl_image *image);

#endif
