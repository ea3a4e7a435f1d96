// SPDX-License-Identifier: Apache-2.0
//
// A new image may heal earlier ones: if the store has damaged frames that images need, their pages
// may be among those that were just packed.
#ifndef FAULTLINE_SNAPSHOT_PACK_HEAL_H
#define FAULTLINE_SNAPSHOT_PACK_HEAL_H

#include "snapshot/store_dir.h"

// Heals earlier images from `packs`, those of the new image, which is published. The caller holds
// the store's lock, shared. What cannot be healed is left to repair. Sets healed_images,
// damaged_images and, if the list of bad frames could not be written, bad_not_noted.
void fl_pack_heal(struct fl_store *store, const uint64_t *packs, uint32_t count,
                  struct fl_pack_result *result);

#endif
