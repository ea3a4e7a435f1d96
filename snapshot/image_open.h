// SPDX-License-Identifier: Apache-2.0
//
// Makes an open image from an image's file and its packs, wherever the descriptors come from.
#ifndef FAULTLINE_SNAPSHOT_IMAGE_OPEN_H
#define FAULTLINE_SNAPSHOT_IMAGE_OPEN_H

#include <stdbool.h>
#include <stdint.h>

#include "snapshot/pack_file.h"
#include "snapshot/read.h"

// Where packs come from. open is required. It is called in the thread of fl_image_load, once for
// each entry of the pack table, in its order, until it fails; fl_image_load then returns its error.
struct fl_pack_source {
    int (*open)(void *arg, uint64_t id, struct fl_pack **ret_pack);
    void *arg;
    bool any;       // the source has any pack that an image may ask for; if false:
    uint32_t packs; // the source has so many packs, and another number of them is -EINVAL
};

// Opens an image. If name is NULL the file may have any name. Reads nothing of a map of version 2.
// Takes *fd over and sets it to -1 if it succeeds. Any thread; blocks on storage. Errors are those
// of fl_image_file_load, fl_image_new and the source.
int fl_image_load(int *fd, const char *name, const struct fl_pack_source *source,
                  struct fl_image **ret_image);

// As fl_image_open_files(), but of no image on offer.
int fl_image_load_files(const int *fds, uint32_t count, struct fl_image **ret_image);

#endif
