// SPDX-License-Identifier: Apache-2.0
//
// The store's list of frames that are known to be bad: one small file that verify, pack, repair and
// gc write, each under a lock, so that none loses what another has found. An entry alone decides
// nothing: an operation that acts on it reads the frame first. The engine only reads the store, so
// it does not write the list.
#ifndef FAULTLINE_SNAPSHOT_BAD_LIST_H
#define FAULTLINE_SNAPSHOT_BAD_LIST_H

#include "snapshot/bad_frames.h"
#include "snapshot/store_dir.h"

enum fl_bad_which { FL_BAD_ALL, FL_BAD_ONLY_NEEDED };

// Returns the list, sorted. A file that is missing, damaged or of another version gives an empty
// list: its frames are found again. -ENOMEM, errors of reading. Release it with fl_bad_frames_free.
int fl_bad_list_load(struct fl_store *store, enum fl_bad_which which,
                     struct fl_bad_frames *ret_bad);

struct fl_bad_change {
    const uint64_t *forget_packs; // entries of these packs are removed first
    size_t forget_count;
    const struct fl_bad_frames *needed; // sorted; then added with this state; NULL: none
    const struct fl_bad_frames *unused; // likewise
};

// Changes the list; writes nothing if nothing changes. -EROFS, -EACCES, -ENOSPC and so on: the list
// is as it was.
int fl_bad_list_change(struct fl_store *store, const struct fl_bad_change *change);

#endif
