// SPDX-License-Identifier: Apache-2.0
//
// The companions of an image on offer, which are there before its memory is.
#ifndef FAULTLINE_SNAPSHOT_OFFER_UNPACK_H
#define FAULTLINE_SNAPSHOT_OFFER_UNPACK_H

#include <stdbool.h>

#include "snapshot/store_dir.h"

// False: there is no image on offer of that name. Else *ret is 0, or negative errno after a
// sentence.
bool fl_offer_unpack(struct fl_store *store, const struct fl_unpack_options *options,
                     struct fl_unpack_result *ret_result, struct fl_error *ret_error, int *ret);

#endif
