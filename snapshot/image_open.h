// SPDX-License-Identifier: Apache-2.0
//
// From an image's file and its packs to an open image, wherever the descriptors come from.
#ifndef FAULTLINE_SNAPSHOT_IMAGE_OPEN_H
#define FAULTLINE_SNAPSHOT_IMAGE_OPEN_H

#include <stdbool.h>
#include <stdint.h>

#include "snapshot/pack_file.h"
#include "snapshot/read.h"

// Where the packs are. open is called once for each entry of the pack table, in its order, until
// one fails; what it returns then is what fl_image_load returns.
struct fl_pack_source {
    int (*open)(void *arg, uint64_t id, struct fl_pack **ret_pack);
    void *arg;
    bool any;       // it has whatever an image may ask for; else
    uint32_t packs; // it has so many: an image with another number of them is -EINVAL
};

// name NULL: whatever name the file has. Nothing of a map of version 2 is read. Takes *fd over and
// sets it to -1 if it succeeds. Any thread; blocks on storage. Errors as fl_image_file_load and
// fl_image_new, and those of the source.
int fl_image_load(int *fd, const char *name, const struct fl_pack_source *source,
                  struct fl_image **ret_image);

#endif
