// SPDX-License-Identifier: Apache-2.0
//
// Which pages of which packs the images of a store need, by all of their maps. One thread.
#ifndef FAULTLINE_SNAPSHOT_NEEDED_H
#define FAULTLINE_SNAPSHOT_NEEDED_H

#include "snapshot/image.h"
#include "snapshot/store_dir.h"

struct fl_needed_pack {
    uint64_t id;
    uint64_t *bits; // one for each page of the pack, by its number there
    uint64_t pages; // that an image needs, at least 1
    uint64_t total; // of the pack
    uint64_t bytes; // of its file
};

struct fl_needed_image {
    char name[FL_NAME_MAX + 1];
    uint64_t *packs; // ids
    uint32_t packs_count;
};

struct fl_needed {
    struct fl_needed_pack **packs; // sorted by id
    size_t packs_count, packs_room;
    struct fl_needed_image *images;
    size_t images_count, images_room;
    size_t unreadable_count;          // images that cannot be opened: they may need anything
    char unreadable[FL_NAME_MAX + 1]; // one of them
    int unreadable_error;             // of it; 0: there is none
};

// Opens every image of the store, one at a time. Release with fl_needed_free, also on an error.
// -ENOMEM, errors of listing.
int fl_needed_find(struct fl_store *store, struct fl_needed *ret_needed);
void fl_needed_free(struct fl_needed *needed);
// NULL: no image needs a page of it.
struct fl_needed_pack *fl_needed_pack(const struct fl_needed *needed, uint64_t id);

bool fl_needed_bit(const uint64_t *bits, uint64_t page);
// Returns how many of the `count` pages from `first` on are needed.
uint32_t fl_needed_count(const uint64_t *bits, uint64_t first, uint32_t count);

#endif
