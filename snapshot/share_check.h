// SPDX-License-Identifier: Apache-2.0
//
// A frame is read before a new image shares it: its checksum has to be right, and the bytes at the
// slot have to be the page's. Otherwise damage would spread to images whose input is good.
#ifndef FAULTLINE_SNAPSHOT_SHARE_CHECK_H
#define FAULTLINE_SNAPSHOT_SHARE_CHECK_H

#include "snapshot/bad_frames.h"
#include "snapshot/chunk.h"
#include "snapshot/store_dir.h"

struct fl_share_check;

// known: frames that are never shared; has to stay as it is. trust: look at no other. -ENOMEM.
int fl_share_check_new(struct fl_store *store, const struct fl_bad_frames *known, bool trust,
                       struct fl_share_check **ret_check);
void fl_share_check_free(struct fl_share_check *check); // NULL is allowed

// Room that one thread needs: a frame.
struct fl_share_room {
    uint8_t pages[FL_FRAME_PAGES_MAX * FL_PAGE_SIZE];
};

// Any thread, of a chunk that has its identities and hints. Takes hints to bad frames back, and
// sets `checked` of the pages whose hints may be used: those of the frames that give most pages,
// up to FL_FOREIGN_FRAMES_MAX, as more are not used for a chunk. So at most as many bytes are read
// as the chunk has.
void fl_share_check_chunk(struct fl_share_check *check, struct fl_chunk *chunk,
                          struct fl_share_room *room);

// After all chunks: the frames that this run has found bad, known ones not among them. Sorted; the
// checker's own. -ENOMEM: some are missing.
int fl_share_check_found(struct fl_share_check *check, const struct fl_bad_frames **ret_found);

#endif
