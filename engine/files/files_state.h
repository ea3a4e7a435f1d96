// SPDX-License-Identifier: Apache-2.0
//
// What a successor must know of the file door, in a memfd that the keeper holds beside the
// descriptor of /dev/fuse: which images the kernel knows as files. The files' thread writes
// it; other threads may read how many are open.
#ifndef FAULTLINE_FILES_FILES_STATE_H
#define FAULTLINE_FILES_FILES_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/base/image_name.h"
#include "engine/host/fuse_mount.h"

#define FL_FILES_MAGIC FL_FUSE_STATE_MAGIC
enum { FL_FILES_VERSION = 2, FL_FILES_MOST = 4096, FL_FILES_NOTED = 256 };

enum { FL_FILES_ROOT = 1, FL_FILES_FIRST = 2 };

// The image's own file, as fl_same_file() tells files apart.
struct fl_files_version {
    uint64_t device;
    uint64_t inode;
    int64_t changed_s;
    uint32_t changed_ns;
    uint32_t reserved;
};

// A version of an image that the kernel knows. Each has a node id of its own, in all engines, which
// is not used again.
struct fl_files_entry {
    uint64_t id;      // 0: the entry is free
    uint64_t record;  // the keeper's, of its image; 0: it is not held, as nobody has the file open
    uint64_t lookups; // that the kernel has not forgotten
    uint64_t opens;   // and open files: a mapping keeps one open
    uint64_t used;    // fl_files_state.used when it was looked up or opened last
    uint64_t bytes;
    int64_t mtime_s;
    uint32_t mtime_ns;
    uint32_t reserved;
    struct fl_files_version version;
    char name[FL_IMAGE_NAME_BYTES];
};

struct fl_files_state {
    uint64_t magic;
    uint32_t version;
    uint32_t connection; // its number, which a service manager's store has no place for; 0: unknown
    _Atomic uint64_t open_now; // the sum of `opens`
    // Numbers of the last requests that were counted: one that is sent again is not counted twice.
    uint64_t next_noted;
    uint64_t noted[FL_FILES_NOTED];
    uint64_t last_id; // that a node got
    uint64_t used;    // lookups and opens so far
    struct fl_files_entry entry[FL_FILES_MOST];
};

// A new one, or that of a predecessor. The caller keeps the descriptor. -EPROTONOSUPPORT: it is of
// another version; -EINVAL: it is none.
int fl_files_state_new(int *ret_fd, struct fl_files_state **ret_state);
int fl_files_state_open(int fd, struct fl_files_state **ret_state);
void fl_files_state_unmap(struct fl_files_state *state); // NULL is a no-op

// The files' thread. A free entry, which is not one before it has an id; NULL: there is none.
struct fl_files_entry *fl_files_state_room(struct fl_files_state *state);
// Notes that a LOOKUP, OPEN or RELEASE is counted; false if it was noted before. What adds is added
// before it is noted, and what takes away after: one count too many, where an engine was killed in
// between, costs an image that is held for longer, and one too few would cost its pages.
bool fl_files_state_note(struct fl_files_state *state, uint64_t unique);
bool fl_files_state_is_noted(const struct fl_files_state *state, uint64_t unique);

#endif
