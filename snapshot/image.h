// SPDX-License-Identifier: Apache-2.0
//
// An open image, for those in snapshot/ that need more of it than read.h gives.
#ifndef FAULTLINE_SNAPSHOT_IMAGE_H
#define FAULTLINE_SNAPSHOT_IMAGE_H

#include <stdatomic.h>

#include "snapshot/format.h"
#include "snapshot/pack_file.h"

struct fl_image {
    atomic_uint refs;
    int fd; // the image's file, set once before the image is handed out; -1: a raw file's image
    // Immutable from the time the image is open.
    struct fl_image_id id;
    struct fl_disk_image_header header; // of a raw file: name, bytes and pages only
    uint64_t *map;                      // header.pages entries, each checked against its pack
    struct fl_pack **packs;             // in the order of the pack table
    struct fl_pack **by_id;             // the same, sorted by id
};

// Takes the map (from fl_map_memory) and the references in packs (from malloc) over, also on error.
// The image has no file of its own yet. -EBADMSG if an entry points to what its pack does not have.
int fl_image_new(const struct fl_disk_image_header *header, uint64_t *map, struct fl_pack **packs,
                 struct fl_image **ret_image);

#endif
