// SPDX-License-Identifier: Apache-2.0
//
// An image with the same content in another layout, in the place of the one that was read.
#ifndef FAULTLINE_SNAPSHOT_IMAGE_REWRITE_H
#define FAULTLINE_SNAPSHOT_IMAGE_REWRITE_H

#include "snapshot/image.h"
#include "snapshot/store_dir.h"

// The image as it is going to be, not on disk yet: once it is published it may be removed or
// replaced at any time. map: from fl_map_memory, taken over in every case; its entries refer to
// `old`'s pack table, and those of the new pack have the index after its end. Packs that no page
// needs any more are left out, so that they can be collected. -ENOMEM, -EOVERFLOW (too many packs),
// -EBADMSG, errors of opening the pack.
int fl_image_rewrite(struct fl_store *store, const struct fl_image *old, uint64_t *map,
                     uint64_t new_pack_id, struct fl_image **ret_image);

// Publishes it under old's name. -ESTALE: old was replaced or removed meanwhile.
int fl_image_replace(struct fl_store *store, const struct fl_image *old,
                     const struct fl_image *image, uint64_t *ret_bytes);

#endif
