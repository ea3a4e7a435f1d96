// SPDX-License-Identifier: Apache-2.0
//
// Decides which packs a verification looks at.
#ifndef FAULTLINE_SNAPSHOT_VERIFY_PACKS_H
#define FAULTLINE_SNAPSHOT_VERIFY_PACKS_H

#include "snapshot/pack_list.h"
#include "snapshot/store_dir.h"

// Lists all packs of the store, or those of the named images, each once. An image that cannot be
// opened adds none; it is reported with the images.
int fl_verify_choose_packs(struct fl_store *store, const struct fl_verify_options *options,
                           struct fl_pack_ids *ids);

#endif
