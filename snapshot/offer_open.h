// SPDX-License-Identifier: Apache-2.0
//
// Opens images on offer; offer_open.c has the functions of read.h that open images of either kind,
// too. Any thread; blocks on storage.
#ifndef FAULTLINE_SNAPSHOT_OFFER_OPEN_H
#define FAULTLINE_SNAPSHOT_OFFER_OPEN_H

#include "snapshot/offer_table.h"
#include "snapshot/reader.h"

// Opens the table of a head; the caller closes ret_table->fd. -EAGAIN: it is gone; -EBADMSG, ...
int fl_offer_open_table(struct fl_reader *reader, const struct fl_disk_offer_head *head,
                        struct fl_offer_table *ret_table);

#endif
