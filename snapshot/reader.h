// SPDX-License-Identifier: Apache-2.0
//
// A store opened for reading, for the files of snapshot/ that need more of it than read.h gives.
#ifndef FAULTLINE_SNAPSHOT_READER_H
#define FAULTLINE_SNAPSHOT_READER_H

#include <sys/types.h>

#include "snapshot/pack_file.h"
#include "snapshot/read.h"

enum fl_store_part { FL_PART_STORE, FL_PART_IMAGES, FL_PART_PACKS, FL_PARTS };

// Immutable once open: any thread.
struct fl_reader {
    _Atomic unsigned refs;
    int dir_fd;
    int images_fd;
    char *dir;
    char *images_dir;
    struct {
        dev_t dev;
        ino_t ino;
    } part[FL_PARTS]; // which directories they were
    struct fl_registry *registry;
};

// Opens the image lazily as fl_image_open_lazy() does, but none on offer.
int fl_reader_open_finished(struct fl_reader *reader, const char *name,
                            struct fl_image **ret_image);
// Returns true if the name in images/ still leads to the open file.
bool fl_file_still_published(const struct fl_reader *reader, const char *file_name, int fd);
// Returns true if the image's name still leads to its file.
bool fl_image_still_published(const struct fl_reader *reader, const struct fl_image *image);

#endif
