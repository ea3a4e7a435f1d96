// SPDX-License-Identifier: Apache-2.0
//
// The store, as it is at its path now. It may be moved away, unmounted, or replaced by another
// under the same path at any time: a caller that needs it asks here each time, and can do without.
#ifndef FAULTLINE_IMAGE_STORE_PLACE_H
#define FAULTLINE_IMAGE_STORE_PLACE_H

#include <stdbool.h>

#include "snapshot/error.h"
#include "snapshot/read.h"

struct fl_store_place;

// What fl_store_place_get() returns when there is no store to be had at the path.
#define FL_NO_STORE_NOW (-ENOMEDIUM)

// Opens nothing. Takes no ownership of the path.
int fl_store_place_new(const char *store, struct fl_store_place **ret_place);
void fl_store_place_free(struct fl_store_place *place); // NULL is a no-op

// Any thread. The path of the directory with the images; the place's own.
const char *fl_store_images_dir(const struct fl_store_place *place);
// Blocks on storage: reader threads. A reference. FL_NO_STORE_NOW, or what the process is short of
// (-EMFILE, -ENFILE, -ENOMEM).
int fl_store_place_get(struct fl_store_place *place, struct fl_reader **ret_reader);
// Any thread. Why there was none when it was asked for last, as a sentence.
void fl_store_place_why(struct fl_store_place *place, struct fl_error *ret_error);

#endif
