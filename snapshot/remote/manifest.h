// SPDX-License-Identifier: Apache-2.0
//
// What is published of an image: a small JSON object that names the files it consists of, by their
// SHA-256. docs/remote.md describes it. Any thread; no state.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_MANIFEST_H
#define FAULTLINE_SNAPSHOT_REMOTE_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "snapshot/read.h"
#include "snapshot/remote/s3_text.h"

// "data/", the SHA-256 in hex, ".", 16 random hex digits, and NUL.
enum { FL_DATA_KEY_BYTES = 5 + 64 + 1 + 16 + 1 };
#define FL_DATA_PREFIX "data/"

struct fl_remote_file {
    char sha256[FL_HEX_BYTES]; // "": there is no such file
    char key[FL_DATA_KEY_BYTES];
    uint64_t bytes;
};

struct fl_remote_pack {
    uint64_t id;
    struct fl_remote_file file;
};

struct fl_manifest {
    char name[FL_NAME_MAX + 1];
    bool removed; // nothing below is set then
    char content_id[FL_HEX_BYTES];
    uint64_t bytes;   // of the memory
    uint64_t created; // seconds since the epoch
    struct fl_remote_file map, trace;
    struct fl_remote_pack *packs;
    size_t packs_count;
};

enum { FL_MANIFEST_MAX_BYTES = 32 << 20 };

// True for the key of a data file.
bool fl_data_key_valid(const char *key);
// True for `prefix`, a SHA-256 in hex, '.', and 16 hex digits.
bool fl_hashed_key_valid(const char *key, const char *prefix);

// Writes it as text, which the caller frees. -ENOMEM.
int fl_manifest_print(const struct fl_manifest *manifest, char **ret_text);
// Reads it, and believes nothing: names, hashes, keys and sizes are checked. -EBADMSG: it is not
// one of the image `name`; -EPROTONOSUPPORT: a newer program wrote it; -ENOMEM. Release it with
// fl_manifest_free.
int fl_manifest_parse(const char *text, size_t bytes, const char *name,
                      struct fl_manifest *ret_manifest);
void fl_manifest_free(struct fl_manifest *manifest);

#endif
