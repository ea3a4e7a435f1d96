// SPDX-License-Identifier: Apache-2.0
//
// Files that come from a bucket into the tmp/ of a store. A file that was fetched in part by a
// process that was killed is gone on with. Its bytes are never used before its SHA-256 is right.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_FETCH_H
#define FAULTLINE_SNAPSHOT_REMOTE_FETCH_H

#include "snapshot/publish.h"
#include "snapshot/remote/catalog.h"
#include "snapshot/store_dir.h"

struct fl_fetch {
    struct fl_remote *remote;
    struct fl_store *store;
    int (*moved)(void *arg, uint64_t bytes); // an error ends it
    void *arg;
    uint64_t resumed; // bytes that were there
};

// A map is held while what it needs is fetched, so maps have names of their own in tmp/: a manifest
// that names one file as both must not lead to a lock that nobody gives up.
enum fl_fetch_kind { FL_FETCH_MAP, FL_FETCH_DATA };

// Waits while another process fetches the same file. 1: that one is done with it, and nothing was
// fetched: the caller looks whether the store has it now. 0: *ret_temp has all of it, verified, and
// is locked (flock) until it is discarded. -EBADMSG: the bucket's bytes are wrong. After an error
// what has come stays in tmp/, unless it was wrong.
int fl_fetch_file(struct fl_fetch *fetch, enum fl_fetch_kind kind,
                  const struct fl_remote_file *file, struct fl_temp *ret_temp,
                  struct fl_error *ret_error);
// Gives the file a name of its own in tmp/, before it is published: what is replaced by it gets
// that name for a moment, and must never be taken for a file that was fetched in part.
int fl_fetch_take(struct fl_temp *temp);

#endif
