// SPDX-License-Identifier: Apache-2.0
//
// Reads the companions of an open image. One thread for each reader; blocks on storage.
#ifndef FAULTLINE_SNAPSHOT_COMPANION_H
#define FAULTLINE_SNAPSHOT_COMPANION_H

#include "snapshot/bad_frames.h"
#include "snapshot/identity.h"
#include "snapshot/image_tail.h"

// Returns the first page of companion `number` of the tail, which fl_image_tail_tell() has checked.
uint64_t fl_companion_first_page(const struct fl_image *image, const struct fl_image_tail *tail,
                                 uint32_t number);
// Compares the companion with its content id, by the identities that the packs have of its pages.
// -EBADMSG: it is another one.
int fl_companion_check(const struct fl_image *image, const struct fl_image_tail *tail,
                       uint32_t number);
// Returns how many of its pages are in these frames.
uint64_t fl_companion_bad_pages(const struct fl_image *image, const struct fl_image_tail *tail,
                                uint32_t number, const struct fl_bad_frames *bad);
// Writes the companion to a file, and compares what was written with its content id. Sets
// *ret_output_failed if it is the file that cannot be written. -EBADMSG: the companion is damaged.
int fl_companion_write(const struct fl_image *image, const struct fl_image_tail *tail,
                       uint32_t number, int fd, bool *ret_output_failed);
// Returns the identities of the pages of a run; those of zero pages are known without a look.
int fl_image_run_identities(const struct fl_image *image, uint64_t page, const struct fl_run *run,
                            struct fl_identity *ret_identities);

#endif
