// SPDX-License-Identifier: Apache-2.0
//
// What the operations share: the open store, its lock, and which pack is to blame for an image.
#ifndef FAULTLINE_SNAPSHOT_STORE_DIR_H
#define FAULTLINE_SNAPSHOT_STORE_DIR_H

#include "snapshot/error.h"
#include "snapshot/reader.h"
#include "snapshot/store.h"

struct fl_store {
    char *dir;
    char *index_dir;
    int packs_fd;
    int tmp_fd;
    int lock_fd;
    struct fl_reader *reader;
};

struct fl_blame {
    char text[160];
};
// What follows "image NAME: " where it could not be opened; if a pack is to blame, which. In
// ret_blame or constant.
const char *fl_image_blame(struct fl_store *store, const char *name, int error,
                           struct fl_blame *ret_blame);
// The whole sentence about it. Returns error.
int fl_image_failed(struct fl_store *store, const char *name, int error,
                    struct fl_error *ret_error);

enum fl_lock { FL_LOCK_SHARED, FL_LOCK_EXCLUSIVE };
// Waits for the lock; a signal handled without SA_RESTART ends the wait with -EINTR. It is given
// back by fl_store_unlock, and by the kernel when the process dies.
int fl_store_lock(struct fl_store *store, enum fl_lock lock, struct fl_error *ret_error);
void fl_store_unlock(struct fl_store *store);

// Who takes an image's name away or puts another file under it holds this lock, so that it can look
// first; it is held for the time of a rename. -errno.
int fl_store_lock_names(struct fl_store *store);
void fl_store_unlock_names(struct fl_store *store);

// 0, or -ECANCELED if the caller wants to stop.
int fl_progress_call(const struct fl_progress *progress, uint64_t done, uint64_t total);

double fl_seconds_wall(void);
double fl_seconds_thread(void); // CPU time of the calling thread

#endif
