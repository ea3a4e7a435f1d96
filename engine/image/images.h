// SPDX-License-Identifier: Apache-2.0
//
// The open images of a store: one copy of an image's map however many VMs use it. An image that was
// replaced under its name since is another image.
#ifndef FAULTLINE_IMAGE_IMAGES_H
#define FAULTLINE_IMAGE_IMAGES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "engine/image/plan.h"
#include "snapshot/read.h"

struct fl_images;
struct fl_keeper_link;
struct fl_store_place;

// The place and the link must outlive it.
int fl_images_new(struct fl_store_place *place, struct fl_keeper_link *keeper_link,
                  struct fl_images **ret_images);
void fl_images_free(struct fl_images *images); // NULL is a no-op

// Any thread. The path of the file of an image of this name, whether there is one or not; "-" for
// `images` NULL, and for a name that no image has. Returns buf.
const char *fl_images_path(const struct fl_images *images, const char *name, char *buf,
                           size_t size);
// Reader threads: blocks on storage. Adds a user; returns a reference to the image. FL_NO_STORE_NOW
// (store_place.h) while there is no store. An image that is still packed is got as any other; see
// read.h for what its map says.
int fl_images_get(struct fl_images *images, const char *name, struct fl_image **ret_image);
// Reader threads: blocks on storage. What the store has under the name now; nothing is held of it
// after this. Errors as of fl_images_get().
struct fl_image_look {
    struct stat file; // the image's own
    uint64_t bytes;   // of the memory file
};
int fl_images_look(struct fl_images *images, const char *name, struct fl_image_look *ret_look);
// Reader threads, one at a time: blocks on storage, shortly. Looks which images on offer were
// published since.
void fl_images_settle(struct fl_images *images);
// As fl_images_get() from the files of the keeper's record `id`. The caller keeps the descriptors.
int fl_images_get_files(struct fl_images *images, uint64_t id, const int *fds, uint32_t count,
                        struct fl_image **ret_image);
// Reader threads: blocks on storage. What replay makes of the trace that the store has for the
// image now, and a reference; NULL: it has none that can be used, which is said in the log, once
// for each file while the image is in use. -EBUSY: another reader prepares it just now. For an
// image that has a user.
int fl_images_plan(struct fl_images *images, const struct fl_image *image,
                   struct fl_plan **ret_plan);
// Control thread. Adds a user of an image that is in use; returns a new reference.
struct fl_image *fl_images_use(struct fl_images *images, struct fl_image *image);
// Control thread. True if the store has this very one under its name.
bool fl_images_is_current(struct fl_images *images, const struct fl_image *image);
// Control thread. Has the keeper hold it for a successor from now on, until its last user goes. The
// number of its record; 0 if it is not from here.
uint64_t fl_images_keep(struct fl_images *images, struct fl_image *image);
// Control thread. Again, for a new keeper.
void fl_images_keep_all(struct fl_images *images);
// Control thread. Takes a user away and the caller's reference; the last user closes the image. For
// an image that is not from here, or with `images` NULL, only the reference goes.
void fl_images_put(struct fl_images *images, struct fl_image *image);

#endif
