// SPDX-License-Identifier: Apache-2.0
//
// The tables of the index in LMDB, which maps its file and trusts what is in it: a damaged file, or
// a full disk under a sparse one, can end the process that touches it, or keep it busy for ever. So
// only index_child.c calls this, in a process of its own.
#ifndef FAULTLINE_SNAPSHOT_INDEX_LMDB_H
#define FAULTLINE_SNAPSHOT_INDEX_LMDB_H

#include <errno.h>
#include <stdbool.h>

#include "snapshot/format.h"

struct fl_lmdb;

// PUT: the new record replaces the present one. PUT_NEW: it does so only if the pack of the present
// record is not known. DELETE: the present record is removed if it is of the same pack.
enum fl_record_change { FL_RECORD_PUT, FL_RECORD_PUT_NEW, FL_RECORD_DELETE };

struct fl_record {
    struct fl_identity identity;
    struct fl_disk_place place;
};

// Errors are negative errno; -EBADMSG: the file is damaged.
int fl_lmdb_open(const char *dir, struct fl_lmdb **ret_lmdb);
void fl_lmdb_close(struct fl_lmdb *lmdb); // NULL is a no-op

// Opens a consistent view, once. fl_lmdb_get looks up in it.
int fl_lmdb_view(struct fl_lmdb *lmdb);
// -ENOENT: not known.
int fl_lmdb_get(struct fl_lmdb *lmdb, const struct fl_identity *identity,
                struct fl_disk_place *ret_place);
// Returns 1 if the pack is in the index, 0 if not, or negative errno. Needs no view.
int fl_lmdb_has_pack(struct fl_lmdb *lmdb, uint64_t pack_id);

// A transaction, without a view: begin, any number of changes, commit. -ENOSPC: the disk is full;
// FL_LMDB_FULL: LMDB's map is full, and begin with `grow` makes it larger.
#define FL_LMDB_FULL (-EXFULL)
int fl_lmdb_begin(struct fl_lmdb *lmdb, bool grow);
int fl_lmdb_change(struct fl_lmdb *lmdb, enum fl_record_change change,
                   const struct fl_record *record);
// Records that the pack is in the index from now on (known), or is not.
int fl_lmdb_set_pack(struct fl_lmdb *lmdb, uint64_t pack_id, uint64_t pages, bool known);
int fl_lmdb_commit(struct fl_lmdb *lmdb);
void fl_lmdb_abort(struct fl_lmdb *lmdb);

#endif
