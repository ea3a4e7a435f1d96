// SPDX-License-Identifier: Apache-2.0
//
// Writes a new image file, in the order of its pages. One thread at a time.
#ifndef FAULTLINE_SNAPSHOT_IMAGE_WRITER_H
#define FAULTLINE_SNAPSHOT_IMAGE_WRITER_H

#include "snapshot/format.h"
#include "snapshot/image_tail.h"

struct fl_image_writer;

int fl_image_writer_new(int tmp_fd, struct fl_image_writer **ret_writer);
// Removes the temporary file unless it was published. NULL is a no-op.
void fl_image_writer_free(struct fl_image_writer *writer);

int fl_image_writer_append(struct fl_image_writer *writer, const uint64_t *entries, uint64_t count);
int fl_image_writer_append_zero(struct fl_image_writer *writer, uint64_t count);
// Writes the pack table, the tail and the header, whose magic, version and checksums it fills in,
// and has the kernel begin to write the file out.
int fl_image_writer_finish(struct fl_image_writer *writer, struct fl_disk_image_header *header,
                           const uint64_t *pack_ids, struct fl_image_tail *tail,
                           uint64_t *ret_bytes);
// Publishes a finished image under the header's name. -EEXIST: there is an image of this name
// (without replace).
int fl_image_writer_place(struct fl_image_writer *writer, const struct fl_disk_image_header *header,
                          int images_fd, bool replace);
// Does both.
int fl_image_writer_publish(struct fl_image_writer *writer, struct fl_disk_image_header *header,
                            const uint64_t *pack_ids, struct fl_image_tail *tail, int images_fd,
                            bool replace, uint64_t *ret_bytes);

#endif
