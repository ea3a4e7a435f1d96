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
// Returns what to say after "image NAME: " if the image could not be opened; it names the pack that
// is to blame, if there is one. The text is in ret_blame or constant.
const char *fl_image_blame(struct fl_store *store, const char *name, int error,
                           struct fl_blame *ret_blame);
// Writes the whole sentence about an image that could not be opened. Returns error.
int fl_image_failed(struct fl_store *store, const char *name, int error,
                    struct fl_error *ret_error);

enum fl_lock { FL_LOCK_SHARED, FL_LOCK_EXCLUSIVE };
// Waits for the store's lock. A signal that is handled without SA_RESTART ends the wait with
// -EINTR. fl_store_unlock releases the lock, and so does the kernel when the process dies.
int fl_store_lock(struct fl_store *store, enum fl_lock lock, struct fl_error *ret_error);
void fl_store_unlock(struct fl_store *store);

// Locks the names of images. An operation that removes an image's name, or gives it to another
// file, holds this lock for the time of the rename, so that it can look at the old file first.
// -errno.
int fl_store_lock_names(struct fl_store *store);
void fl_store_unlock_names(struct fl_store *store);

// Reports progress. Returns 0, or -ECANCELED if the callback wants to stop.
int fl_progress_call(const struct fl_progress *progress, uint64_t done, uint64_t total);

double fl_seconds_wall(void);
double fl_seconds_thread(void); // CPU time of the calling thread

#endif
