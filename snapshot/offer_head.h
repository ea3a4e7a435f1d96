// SPDX-License-Identifier: Apache-2.0
//
// The names of an image on offer: NAME.live in the directory of images, each with the pack table.
// Any thread; blocks on storage.
#ifndef FAULTLINE_SNAPSHOT_OFFER_HEAD_H
#define FAULTLINE_SNAPSHOT_OFFER_HEAD_H

#include "snapshot/format.h"

#define FL_OFFER_NAME_BYTES (FL_NAME_MAX + sizeof(FL_OFFER_SUFFIX))

// -EINVAL: no image may have this name.
int fl_offer_file_name(const char *name, char ret_file[FL_OFFER_NAME_BYTES]);

// Writes a new file. Its magic, version and checksums are filled in.
int fl_offer_head_write(int fd, struct fl_disk_offer_head *head, const uint64_t *packs);
// Reads and verifies it; of any valid name if `name` is NULL. *ret_packs is to be freed; ret_packs
// may be NULL. -EBADMSG, -EPROTONOSUPPORT, -ENOMEM, errors of reading.
int fl_offer_head_read(int fd, const char *name, struct fl_disk_offer_head *ret_head,
                       uint64_t **ret_packs);

#endif
