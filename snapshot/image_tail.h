// SPDX-License-Identifier: Apache-2.0
//
// What stands behind the pack table of an image: its companions, its labels, and the name of its
// parent. It is read when it is asked for; serving pages never reads it. One thread.
#ifndef FAULTLINE_SNAPSHOT_IMAGE_TAIL_H
#define FAULTLINE_SNAPSHOT_IMAGE_TAIL_H

#include "snapshot/about.h"
#include "snapshot/format.h"
#include "snapshot/image.h"

// Of zero bytes: the tail of an image that has nothing besides memory.
struct fl_image_tail {
    struct fl_disk_image_footer footer;
    void *about; // fl_image_about_bytes(&footer): companions, then labels
};

// May be NULL.
bool fl_image_tail_empty(const struct fl_image_tail *tail);
// Makes the tail from a list of companions, which is sorted by name, and from labels, which are
// KEY=VALUE, sorted. parent is NULL if there is none. -ENOMEM; -E2BIG: too many labels.
int fl_image_tail_make(const struct fl_disk_companion *companions, uint32_t companions_count,
                       const char *const *labels, size_t labels_count, const char *parent,
                       const uint8_t *parent_content_id, struct fl_image_tail *ret_tail);
// Reads the tail of an open image. -EBADMSG, -ENOMEM, errors of reading. Blocks on storage.
int fl_image_tail_read(const struct fl_image *image, struct fl_image_tail *ret_tail);
// Writes the tail at *end of the file and moves *end behind it. Fills in the checksums.
int fl_image_tail_write(struct fl_image_tail *tail, int fd, uint64_t *end);
void fl_image_tail_free(struct fl_image_tail *tail);

// Returns the companions, footer.companions of them.
const struct fl_disk_companion *fl_image_tail_companions(const struct fl_image_tail *tail);
uint64_t fl_companion_pages(uint64_t bytes);
// Tells what the tail says, after a check of each field. -EBADMSG, -ENOMEM.
int fl_image_tail_tell(const struct fl_image_tail *tail, struct fl_image_about *ret_about);

#endif
