// SPDX-License-Identifier: Apache-2.0
//
// The index says for a page's identity where that page is stored. Only packing and collecting use
// it. It is a cache, in LMDB, of what the packs' own tables say: an entry is a hint that has to be
// checked against its pack before it is used, and a lost index costs dedup, never an image.
//
// LMDB runs in processes of its own, one for each handle and one for each view (index_link.h).
// Whatever is in its file, the worst that happens in this process is -EBADMSG: the index is
// damaged. Such an index is built again from the packs (fl_index_open_or_rebuild).
//
// Errors are negative errno.
#ifndef FAULTLINE_SNAPSHOT_INDEX_H
#define FAULTLINE_SNAPSHOT_INDEX_H

#include <stdbool.h>

#include "snapshot/format.h"
#include "snapshot/pack_file.h"
#include "snapshot/store_dir.h"

struct fl_index;      // one thread at a time
struct fl_index_view; // a consistent view, for any thread: those that share one take turns

int fl_index_open(const char *dir, struct fl_index **ret_index);
// All views must be closed before. NULL is a no-op.
void fl_index_close(struct fl_index *index);

// Removes the index's files. -EBUSY: another process has it open.
int fl_index_clear(const char *dir);
// Builds a new index of all packs that images refer to and that can be read. The caller holds the
// store's lock. Errors are those of fl_index_clear, fl_index_open and fl_index_add_pack.
int fl_index_rebuild(struct fl_store *store, struct fl_index **ret_index);
// Opens the index, or builds it again if it is damaged; *ret_rebuilt says which.
int fl_index_open_or_rebuild(struct fl_store *store, struct fl_index **ret_index,
                             bool *ret_rebuilt);

// What becomes of a page that the index knows already. FL_INDEX_NEWER: its place is in this pack
// now, because newer neighbours are better ones. FL_INDEX_KEEP_KNOWN: it keeps its place, unless
// the pack of that place is not known.
enum fl_index_prefer { FL_INDEX_NEWER, FL_INDEX_KEEP_KNOWN };

// Adds a pack of the store to its index, and builds a damaged index again. Errors likewise.
int fl_index_learn(struct fl_store *store, uint64_t pack_id, enum fl_index_prefer prefer,
                   bool *ret_rebuilt);

#define FL_INDEX_GET_MAX 512u

int fl_index_view_open(struct fl_index *index, struct fl_index_view **ret_view);
void fl_index_view_close(struct fl_index_view *view); // NULL is a no-op
// Looks up the places of up to FL_INDEX_GET_MAX pages. A place with pack_id 0 is not known.
int fl_index_get(struct fl_index_view *view, const struct fl_identity *identities, uint32_t count,
                 struct fl_disk_place *ret_places);
// Returns 1 if the index knows the pack, 0 if not, or negative errno.
int fl_index_has_pack(struct fl_index *index, uint64_t pack_id);

// Each of these two is one transaction, which happens as a whole or not at all. Open views do not
// change. -EUCLEAN: the pack is damaged, not the index.
int fl_index_add_pack(struct fl_index *index, const struct fl_pack *pack,
                      enum fl_index_prefer prefer);
int fl_index_remove_pack(struct fl_index *index, const struct fl_pack *pack);

#endif
