// SPDX-License-Identifier: Apache-2.0
//
// The frames that are known to be bad, as the store remembers them: one small file that verify,
// pack, repair and gc write, each under a lock, so that none forgets what another has found. It
// decides nothing alone: whoever acts on an entry reads the frame first. The engine does not write
// it: it needs no more than reading the store.
#ifndef FAULTLINE_SNAPSHOT_BAD_LIST_H
#define FAULTLINE_SNAPSHOT_BAD_LIST_H

#include "snapshot/bad_frames.h"
#include "snapshot/store_dir.h"

enum fl_bad_which { FL_BAD_ALL, FL_BAD_ONLY_NEEDED };

// Sorted. A file that is missing, damaged or of another version is an empty list: what it had is
// found again. -ENOMEM, errors of reading. Release with fl_bad_frames_free.
int fl_bad_list_load(struct fl_store *store, enum fl_bad_which which,
                     struct fl_bad_frames *ret_bad);

struct fl_bad_change {
    const uint64_t *forget_packs; // what is listed of these is forgotten first
    size_t forget_count;
    const struct fl_bad_frames *needed; // sorted, are listed with this state then; NULL: none
    const struct fl_bad_frames *unused; // likewise
};

// Writes nothing if nothing changes. -EROFS, -EACCES, -ENOSPC and so on: the list is as it was.
int fl_bad_list_change(struct fl_store *store, const struct fl_bad_change *change);

#endif
