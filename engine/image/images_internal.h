// SPDX-License-Identifier: Apache-2.0
//
// What the parts of images.h share: the open images (images.c), and their plans (images_plan.c).
#ifndef FAULTLINE_IMAGE_IMAGES_INTERNAL_H
#define FAULTLINE_IMAGE_IMAGES_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include <urcu/list.h>

#include "engine/image/plan_cache.h"
#include "snapshot/read.h"

struct fl_keeper_link;
struct fl_store_place;

struct fl_image_entry {
    struct cds_list_head link;
    struct stat file; // identity of the image file
    struct fl_image *image;
    unsigned users;
    uint64_t record; // the keeper's, 0: none. Control thread, but when it is new
    // Its trace, as of that file (of inode 0: it has not been looked for, or there was none):
    struct stat trace_file;
    struct fl_plan *plan; // NULL: there is none that can be used
    bool planning;        // by a reader
};

struct fl_images {
    struct fl_store_place *place;
    struct fl_keeper_link *keeper_link;
    pthread_mutex_t lock; // the list and the entries; never held over I/O
    struct cds_list_head open;
    struct fl_plan_cache plans; // of images that are not open
};

// With the lock held. NULL if the image is not from here.
struct fl_image_entry *fl_images_entry(struct fl_images *images, const struct fl_image *image);

#endif
