// SPDX-License-Identifier: Apache-2.0
//
// The companions and labels of an image that is packed. Their chunks pass through the stages of
// packing behind those of memory, so their pages are shared and compressed as any others.
#ifndef FAULTLINE_SNAPSHOT_PACK_WITH_H
#define FAULTLINE_SNAPSHOT_PACK_WITH_H

#include <sys/stat.h>

#include "snapshot/chunk.h"
#include "snapshot/identity.h"
#include "snapshot/image_tail.h"
#include "snapshot/store.h"

struct fl_pack_companion {
    int fd;
    struct stat stat;
    const char *path;
    struct fl_disk_companion disk;
};

struct fl_pack_with {
    struct fl_pack_companion *companions; // sorted by name
    uint32_t count;
    const char **labels; // sorted
    size_t labels_count;
    // Used by the stage `next` only: the chunk that comes next.
    uint32_t next;
    uint64_t next_page; // of the companion
    // Used by the stage `place` only.
    struct fl_hasher *hasher;
};

// Opens the files. -EINVAL, -EEXIST, -E2BIG, errors of opening, each with its sentence. Release it
// with fl_with_close, also after an error.
int fl_with_open(const struct fl_pack_options *options, struct fl_pack_with *ret_with,
                 struct fl_error *ret_error);
void fl_with_close(struct fl_pack_with *with); // of zero bytes: a no-op
// Looks whether the files are what they were.
int fl_with_unchanged(const struct fl_pack_with *with, struct fl_error *ret_error);
// Makes the image's tail, when all chunks are through.
int fl_with_tail(const struct fl_pack_with *with, const struct fl_pack_live *live,
                 struct fl_image_tail *ret_tail);

// The stages for a chunk of a companion: cut it off (0: none is left), read its bytes, and add its
// identities to the companion's content id.
int fl_with_next(struct fl_pack_with *with, struct fl_chunk *chunk);
int fl_with_read(struct fl_chunk *chunk);
int fl_with_hash(struct fl_pack_with *with, const struct fl_chunk *chunk);

#endif
