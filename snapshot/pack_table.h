// SPDX-License-Identifier: Apache-2.0
//
// The frame table of a pack says where its frames are. When it is opened only the list of its
// pieces is read; a piece is read and checked when one of its frames is first asked for.
#ifndef FAULTLINE_SNAPSHOT_PACK_TABLE_H
#define FAULTLINE_SNAPSHOT_PACK_TABLE_H

#include "snapshot/format.h"
#include "snapshot/lazy.h"
#include "snapshot/offer_table.h"

struct fl_frame_entry {
    struct fl_disk_frame disk;
    uint64_t first_page; // of this frame among the pack's pages
};

struct fl_pack_table {
    int fd; // the pack's
    uint32_t version;
    uint32_t frames;
    uint64_t pages;
    uint64_t offset;
    uint64_t identity_offset;
    uint64_t identity_checksum;
    struct fl_disk_frame_piece *piece;  // NULL: version 1, all of it is there
    struct fl_lazy entries;             // of struct fl_frame_entry
    const struct fl_offer_table *offer; // of a pack that is being written: its frames come from
                                        // there, one by one, and have no identities. NULL: others
};

// Opens the table of a pack. The caller keeps fd, which must outlive the table. -EBADMSG: it is not
// the pack of this id; -EPROTONOSUPPORT, -ENOMEM, errors of reading. Any thread; blocks on storage.
int fl_pack_table_open(int fd, uint64_t id, uint64_t file_bytes, struct fl_pack_table **ret_table);
// The table of a pack that is being written; its header is checked alone. `offer` must outlive it.
int fl_pack_table_open_offered(int fd, uint64_t id, const struct fl_offer_table *offer,
                               struct fl_pack_table **ret_table);
void fl_pack_table_close(struct fl_pack_table *table); // NULL is a no-op

// Returns what the table says of a frame. NULL if there is no such frame, or if its piece cannot be
// read: then *ret_error (ret_error may be NULL) is set. Any thread; blocks on storage only if the
// piece was not read yet.
const struct fl_frame_entry *fl_pack_table_find(const struct fl_pack_table *table, uint32_t frame,
                                                int *ret_error);

// Reads and verifies the identities of all pages. -EBADMSG: they are not those that were packed.
// Any thread; blocks on storage.
int fl_pack_table_check_identities(const struct fl_pack_table *table);

#endif
