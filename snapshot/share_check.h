// SPDX-License-Identifier: Apache-2.0
//
// Reads a frame before a new image shares it: its checksum has to be right, and the bytes in the
// slot have to be those of the page. Otherwise damage would spread to images whose input is good.
#ifndef FAULTLINE_SNAPSHOT_SHARE_CHECK_H
#define FAULTLINE_SNAPSHOT_SHARE_CHECK_H

#include "snapshot/bad_frames.h"
#include "snapshot/chunk.h"
#include "snapshot/store_dir.h"

struct fl_share_check;

// known: frames that are never shared; it must outlive the check and not change. trust: do not read
// the other frames. -ENOMEM.
int fl_share_check_new(struct fl_store *store, const struct fl_bad_frames *known, bool trust,
                       struct fl_share_check **ret_check);
void fl_share_check_free(struct fl_share_check *check); // NULL is a no-op

// The room that one thread needs: a frame.
struct fl_share_room {
    uint8_t pages[FL_FRAME_PAGES_MAX * FL_PAGE_SIZE];
};

// Checks a chunk that has its identities and hints. Removes hints to bad frames and sets `checked`
// of the pages whose hints may be used. Reads only the frames that give most pages, up to
// foreign_max, because no more are used for a chunk: so it reads at most as many bytes as the chunk
// has. Any thread; blocks on storage.
void fl_share_check_chunk(struct fl_share_check *check, struct fl_chunk *chunk,
                          struct fl_share_room *room);

// Remembers a frame that was found bad elsewhere. Any thread.
void fl_share_check_note(struct fl_share_check *check, struct fl_frame_id id);

// Call it after all chunks. Returns the frames that this run has found bad, sorted and without the
// known ones; the check owns them. -ENOMEM: some are missing.
int fl_share_check_found(struct fl_share_check *check, const struct fl_bad_frames **ret_found);

#endif
