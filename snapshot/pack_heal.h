// SPDX-License-Identifier: Apache-2.0
//
// What a new image does for earlier ones: if the store has damaged frames that images need, their
// pages may be among those that were just packed.
#ifndef FAULTLINE_SNAPSHOT_PACK_HEAL_H
#define FAULTLINE_SNAPSHOT_PACK_HEAL_H

#include "snapshot/store_dir.h"

// packs: of the new image, which is published. The store is locked, shared. What cannot be done is
// left to repair: sets healed_images, damaged_images and, where the bad frames could not be
// noted, bad_not_noted.
void fl_pack_heal(struct fl_store *store, const uint64_t *packs, uint32_t count,
                  struct fl_pack_result *result);

#endif
