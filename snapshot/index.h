// SPDX-License-Identifier: Apache-2.0
//
// From a page's identity to a place where it is stored: LMDB, for packing and collecting only. It
// is a cache of what the packs' own tables say: an entry is a hint, to be checked against its pack
// before it is used, and a lost index costs dedup, never an image.
//
// LMDB runs in processes of its own, one a handle and one a view (index_link.h): whatever is in its
// file, the worst that happens here is -EBADMSG, the index is damaged. Such an index is made anew
// from the packs (fl_index_open_or_rebuild).
//
// Errors are negative errno.
#ifndef FAULTLINE_SNAPSHOT_INDEX_H
#define FAULTLINE_SNAPSHOT_INDEX_H

#include <stdbool.h>

#include "snapshot/format.h"
#include "snapshot/pack_file.h"
#include "snapshot/store_dir.h"

struct fl_index;      // one thread at a time
struct fl_index_view; // a consistent view for one thread at a time

int fl_index_open(const char *dir, struct fl_index **ret_index);
// All views must be closed.
void fl_index_close(struct fl_index *index); // NULL is allowed

// Removes the index's files. -EBUSY: another process has it open.
int fl_index_clear(const char *dir);
// A new index of all packs of the store that can be read. The caller has the store locked.
// Errors as those of fl_index_clear, fl_index_open and fl_index_add_pack.
int fl_index_rebuild(struct fl_store *store, struct fl_index **ret_index);
// Opens it, or makes it anew if it is damaged; *ret_rebuilt tells.
int fl_index_open_or_rebuild(struct fl_store *store, struct fl_index **ret_index,
                             bool *ret_rebuilt);

// What becomes of a page that is known already: now it is at this pack's place, as the newer
// neighbours are the better ones; or it stays where it is, unless that pack is not known (any
// more).
enum fl_index_prefer { FL_INDEX_NEWER, FL_INDEX_KEEP_KNOWN };

// Adds a pack of the store to its index; one that is damaged is made anew. Errors likewise.
int fl_index_learn(struct fl_store *store, uint64_t pack_id, enum fl_index_prefer prefer,
                   bool *ret_rebuilt);

int fl_index_view_open(struct fl_index *index, struct fl_index_view **ret_view);
void fl_index_view_close(struct fl_index_view *view); // NULL is allowed
// The places of up to FL_INDEX_GET_MAX pages; pack_id 0: not known.
int fl_index_get(struct fl_index_view *view, const struct fl_identity *identities, uint32_t count,
                 struct fl_disk_place *ret_places);
// 1 or 0.
int fl_index_has_pack(struct fl_index *index, uint64_t pack_id);

// Each one transaction: all or nothing. Views stay what they were. -EUCLEAN: the pack is what is
// damaged.
int fl_index_add_pack(struct fl_index *index, const struct fl_pack *pack,
                      enum fl_index_prefer prefer);
int fl_index_remove_pack(struct fl_index *index, const struct fl_pack *pack);

#endif
