// SPDX-License-Identifier: Apache-2.0
//
// The files of an image, on their way to a bucket: which of them are there, and sending the others.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_PUSH_FILES_H
#define FAULTLINE_SNAPSHOT_REMOTE_PUSH_FILES_H

#include "snapshot/remote/catalog.h"
#include "snapshot/store_dir.h"

struct fl_push_file {
    int fd;           // -1: no such file
    uint64_t pack_id; // 0: it is no pack
    bool sent;        // by this push
    struct fl_remote_file file;
};

// When the bucket was looked at: by fl_s3_now_ms, and by the server's clock, which goes on while
// this host is a VM that is paused. 0: it did not say.
struct fl_since {
    uint64_t ms;
    time_t server;
};

// Finds out which of the files the bucket has, in objects that are not condemned: their key is set;
// the others have key "". What was found holds for FL_REMOTE_GRACE_S from *ret_since on.
int fl_push_find(struct fl_remote *remote, struct fl_push_file *files, size_t count,
                 struct fl_since *ret_since, struct fl_error *ret_error);
// Sends a file, under a key that was never used before, and sets the key. `moved` is called with
// the bytes that were sent since the last time; its error ends the sending.
int fl_push_send(struct fl_remote *remote, struct fl_push_file *file,
                 int (*moved)(void *arg, uint64_t bytes), void *arg, struct fl_error *ret_error);
// Reads all of a pack and compares every page with its identity. -EBADMSG: it is damaged.
int fl_push_check_pack(struct fl_store *store, uint64_t pack_id, bool (*cancelled)(void),
                       struct fl_error *ret_error);

// The list of condemned keys, sorted. Free each, and the list.
struct fl_condemned {
    char **keys;
    size_t count;
};
int fl_condemned_read(struct fl_remote *remote, struct fl_condemned *ret_condemned, time_t *ret_now,
                      struct fl_error *ret_error);
bool fl_condemned_has(const struct fl_condemned *condemned, const char *key);
void fl_condemned_free(struct fl_condemned *condemned);
// Most keys that a list has: one can be read as a whole.
#define FL_CONDEMNED_MAX 500000u
// Appends the keys of one list of the bucket. An object below condemned/ that is named otherwise
// than lists are has none. -EBADMSG: it has other bytes than its name says.
int fl_condemned_add(struct fl_remote *remote, const char *list, struct fl_condemned *condemned,
                     struct fl_error *ret_error);
void fl_condemned_sort(struct fl_condemned *condemned);

#endif
