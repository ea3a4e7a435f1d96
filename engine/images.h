// SPDX-License-Identifier: Apache-2.0
//
// The open images of a store: one copy of an image's map however many VMs use it. An image that was
// replaced under its name since is another image.
#ifndef FAULTLINE_ENGINE_IMAGES_H
#define FAULTLINE_ENGINE_IMAGES_H

#include "snapshot/read.h"

struct fl_images;

// Takes no ownership of the reader, which must outlive it.
int fl_images_new(struct fl_reader *reader, struct fl_images **ret_images);
void fl_images_free(struct fl_images *images); // NULL is allowed

// Reader threads: blocks on storage. A user more, and a reference for the caller.
int fl_images_get(struct fl_images *images, const char *name, struct fl_image **ret_image);
// Any thread. A user less, and the caller's reference: the last user closes it. Also for images
// that are not from here (or images being NULL): then only the reference goes.
void fl_images_put(struct fl_images *images, struct fl_image *image);

#endif
