// SPDX-License-Identifier: Apache-2.0
//
// A store opened for reading, for those in snapshot/ that need more of it than read.h gives.
#ifndef FAULTLINE_SNAPSHOT_READER_H
#define FAULTLINE_SNAPSHOT_READER_H

#include "snapshot/pack_file.h"
#include "snapshot/read.h"

// Immutable once open: any thread.
struct fl_reader {
    int dir_fd;
    int images_fd;
    char *images_dir;
    struct fl_registry *registry;
};

// True if the open file is still what the name in images/ stands for.
bool fl_file_still_published(const struct fl_reader *reader, const char *file_name, int fd);
// The same of an image's file and its name.
bool fl_image_still_published(const struct fl_reader *reader, const struct fl_image *image);

#endif
