// SPDX-License-Identifier: Apache-2.0
//
// A store in a bucket: images are pushed to it, pulled from it, listed, removed, verified, and what
// nothing refers to is collected. docs/remote.md says what is in the bucket and why that is safe
// beside other processes, also ones that are killed.
//
// Threads: one at a time uses a remote store. Every function returns 0 or negative errno, and
// writes one sentence with an error. -ENOENT: there is no such image; -EEXIST: there is another
// one of this name; -EBADMSG: what is in the bucket is not what it should be; else as in s3.h.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_REMOTE_H
#define FAULTLINE_SNAPSHOT_REMOTE_REMOTE_H

#include "snapshot/remote/s3.h"
#include "snapshot/store.h"

struct fl_remote;

int fl_remote_open(const char *url, const struct fl_s3_config *config,
                   struct fl_remote **ret_remote, struct fl_error *ret_error);
void fl_remote_close(struct fl_remote *remote); // NULL is a no-op

struct fl_push_options {
    const char *name;
    bool replace;                // an image of this name that is another
    bool trust_store;            // packs are sent without looking whether they are damaged
    struct fl_progress progress; // bytes that are sent
};

struct fl_push_result {
    bool already; // the same image was there: nothing was published
    uint64_t files_sent, bytes_sent;
    uint64_t files_shared, bytes_shared; // were there before
};

// Publishes an image of the store, with its trace if it has a good one. -EBADMSG: a pack is
// damaged; -ENOTSUP: the server does not keep If-None-Match, so that nothing may be published.
int fl_remote_push(struct fl_remote *remote, struct fl_store *store,
                   const struct fl_push_options *options, struct fl_push_result *ret_result,
                   struct fl_error *ret_error);

struct fl_pull_options {
    const char *name;
    bool replace;
    struct fl_progress progress; // bytes that are fetched
};

struct fl_pull_result {
    bool already;
    uint64_t packs_fetched, bytes_fetched;
    uint64_t bytes_resumed; // of an earlier pull that was interrupted
    uint64_t packs_shared, bytes_shared;
    bool index_rebuilt;
    int index_error; // -errno: later images share less until gc has run
};

int fl_remote_pull(struct fl_remote *remote, struct fl_store *store,
                   const struct fl_pull_options *options, struct fl_pull_result *ret_result,
                   struct fl_error *ret_error);

struct fl_remote_image {
    const char *name;
    const char *content_id; // hex
    uint64_t bytes;         // of the memory
    uint64_t created;       // when it was packed
    time_t pushed;          // by the server's clock
    uint64_t stored_bytes;  // of its files
    size_t packs;
    bool has_trace;
};

// Calls fn for each image, in the order of keys. Stops at its first result that is not 0. Goes on
// behind manifests that cannot be read, and returns the error of the first of them.
int fl_remote_each(struct fl_remote *remote,
                   int (*fn)(void *arg, const struct fl_remote_image *image), void *arg,
                   struct fl_error *ret_error);

// Removes the name. Its files stay until gc.
int fl_remote_rm(struct fl_remote *remote, const char *name, struct fl_error *ret_error);

// What nothing refers to is condemned first, and removed by a later run, FL_REMOTE_GRACE_S after
// that at the earliest. A push must be over within half of that from when it looked.
#define FL_REMOTE_GRACE_S (24 * 3600)

struct fl_remote_gc_options {
    bool dry_run;
    struct fl_progress progress; // objects
};

struct fl_remote_gc_result {
    uint64_t images;
    uint64_t files_kept, bytes_kept;           // an image needs them, or they are too young
    uint64_t files_condemned, bytes_condemned; // now, or before and not old enough
    uint64_t files_removed, bytes_removed;
    uint64_t manifests_removed; // of images that were replaced or removed
};

int fl_remote_gc(struct fl_remote *remote, const struct fl_remote_gc_options *options,
                 struct fl_remote_gc_result *ret_result, struct fl_error *ret_error);

struct fl_remote_verify_options {
    const char *const *names; // NULL: all images
    size_t names_count;
    bool quick; // only whether all files are there, in their size
    void (*bad)(void *arg, const char *object, const char *problem); // for each that is wrong
    void *bad_arg;
    struct fl_progress progress; // bytes
};

struct fl_remote_verify_result {
    uint64_t images, files, bytes, bad;
};

// Reads each file that an image needs, once, and compares its hash. 0 also if something is bad.
int fl_remote_verify(struct fl_remote *remote, const struct fl_remote_verify_options *options,
                     struct fl_remote_verify_result *ret_result, struct fl_error *ret_error);

#endif
