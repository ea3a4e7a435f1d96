// SPDX-License-Identifier: Apache-2.0
//
// Replaces an image by one with the same content in another layout.
#ifndef FAULTLINE_SNAPSHOT_IMAGE_REWRITE_H
#define FAULTLINE_SNAPSHOT_IMAGE_REWRITE_H

#include "snapshot/image.h"
#include "snapshot/store_dir.h"

// Makes the new image in memory; it is not on disk yet, because a published image may be removed or
// replaced at any time. map is from fl_map_memory and is taken over in every case. Its entries
// refer to the pack table of `old`; entries of the new packs have the indices after the table's
// end. Packs that no page needs (any more) are left out, so that they can be collected. -ENOMEM,
// -EOVERFLOW (too many packs), -EBADMSG, errors of opening a pack.
int fl_image_rewrite(struct fl_store *store, const struct fl_image *old, uint64_t *map,
                     const uint64_t *new_pack_ids, uint32_t new_packs, struct fl_image **ret_image);

// Publishes the new image under the name of `old`. -ESTALE: `old` was replaced or removed
// meanwhile.
int fl_image_replace(struct fl_store *store, const struct fl_image *old,
                     const struct fl_image *image, uint64_t *ret_bytes);

#endif
