// SPDX-License-Identifier: Apache-2.0
//
// The names of a remote store: which manifest of an image counts, and how a new one is published.
//
// The manifests of an image lie under images/NAME/NUMBER. The highest number counts. A new one is
// written under the next number, on condition that there is none: of several writers one wins, and
// the others see that. Numbers are never used again, so the highest stays: the mark of an image
// that was removed, too.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_CATALOG_H
#define FAULTLINE_SNAPSHOT_REMOTE_CATALOG_H

#include "snapshot/remote/manifest.h"
#include "snapshot/remote/remote.h"

#define FL_IMAGES_PREFIX "images/"
#define FL_CONDEMNED_PREFIX "condemned/"
#define FL_REMOTE_MARKER "faultline-remote"
enum { FL_MANIFEST_KEY_BYTES = 7 + FL_NAME_MAX + 1 + 16 + 1 };

struct fl_remote {
    struct fl_s3 *s3;
    struct fl_s3_link *link;
};

struct fl_current {
    uint64_t number; // 0: there is none
    time_t modified;
    struct fl_manifest manifest;
};

void fl_manifest_key(const char *name, uint64_t number, char ret_key[FL_MANIFEST_KEY_BYTES]);
// Reads the name and number of a key. False: it is none of a manifest.
bool fl_manifest_parse_key(const char *key, char ret_name[FL_NAME_MAX + 1], uint64_t *ret_number);

// Finds the manifest that counts; number 0 or manifest.removed: there is no image. Release the
// manifest.
int fl_remote_current(struct fl_remote *remote, const char *name, struct fl_current *ret_current,
                      struct fl_error *ret_error);
// Reads one.
int fl_remote_manifest(struct fl_remote *remote, const char *name, uint64_t number,
                       struct fl_manifest *ret_manifest, struct fl_error *ret_error);
// Reads the manifests that count, several at a time, and calls fn for each in the order of keys:
// also for those of images that were removed, and, with a NULL manifest and the reason, for those
// that cannot be read. Stops at its first result that is not 0.
struct fl_listed {
    const struct fl_s3_object *object;
    char name[FL_NAME_MAX + 1];
    uint64_t number;
    const struct fl_manifest *manifest;
    int why; // -EBADMSG, -EPROTONOSUPPORT, -EFBIG
    struct fl_error error;
};
int fl_remote_each_manifest(struct fl_remote *remote,
                            int (*fn)(void *arg, const struct fl_listed *listed), void *arg,
                            struct fl_error *ret_error);
// Publishes. -EEXIST: this number is taken, by another.
int fl_remote_publish(struct fl_remote *remote, uint64_t number, const struct fl_manifest *manifest,
                      struct fl_error *ret_error);
// Is asked before anything is written. -ENOTSUP: the server writes what must not be written.
int fl_remote_check_server(struct fl_remote *remote, struct fl_error *ret_error);

#endif
