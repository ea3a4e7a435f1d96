// SPDX-License-Identifier: Apache-2.0
//
// From a page's identity to a place where it is stored: LMDB, for packing and collecting only. It
// is a cache of what the packs' own tables say: an entry is a hint, to be checked against its pack
// before it is used, and a lost index costs dedup, never an image.
//
// One handle a process and store. Errors are negative errno; -EBADMSG: the index is damaged.
#ifndef FAULTLINE_SNAPSHOT_INDEX_H
#define FAULTLINE_SNAPSHOT_INDEX_H

#include <stdbool.h>

#include "snapshot/format.h"
#include "snapshot/pack_file.h"

struct fl_index;
struct fl_index_view; // a consistent view for one thread at a time

int fl_index_open(const char *dir, struct fl_index **ret_index);
// All views must be closed.
void fl_index_close(struct fl_index *index); // NULL is allowed

int fl_index_view_open(struct fl_index *index, struct fl_index_view **ret_view);
void fl_index_view_close(struct fl_index_view *view); // NULL is allowed
// -ENOENT: not known.
int fl_index_get(struct fl_index_view *view, const struct fl_identity *identity,
                 struct fl_disk_place *ret_place);
bool fl_index_has_pack(struct fl_index_view *view, uint64_t pack_id);

// What becomes of a page that is known already: now it is at this pack's place, as the newer
// neighbours are the better ones; or it stays where it is, unless that pack is not known (any
// more).
enum fl_index_prefer { FL_INDEX_NEWER, FL_INDEX_KEEP_KNOWN };

// Each one transaction: all or nothing. No view may be open in this process (the map may have to
// grow).
int fl_index_add_pack(struct fl_index *index, const struct fl_pack *pack,
                      enum fl_index_prefer prefer);
int fl_index_remove_pack(struct fl_index *index, const struct fl_pack *pack);

#endif
