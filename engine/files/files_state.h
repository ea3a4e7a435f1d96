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

#define FL_FILES_MAGIC 0x656c69666c746c66ULL // "fltlfile"
enum { FL_FILES_VERSION = 1, FL_FILES_MOST = 4096, FL_FILES_NOTED = 256 };

// A version of an image that the kernel knows. Its node id is that of the keeper's record of the
// image, plus FL_FILES_FIRST: so each version has its own, in all engines.
enum { FL_FILES_ROOT = 1, FL_FILES_FIRST = 2 };
struct fl_files_entry {
    uint64_t record;  // of the image; 0: the entry is free
    uint64_t lookups; // that the kernel has not forgotten
    uint64_t opens;   // and open files: a mapping keeps one open
    uint64_t bytes;
    int64_t mtime_s;
    uint32_t mtime_ns;
    uint32_t reserved;
};

struct fl_files_state {
    uint64_t magic;
    uint32_t version;
    uint32_t connection; // its number, which a service manager's store has no place for; 0: unknown
    _Atomic uint64_t open_now; // the sum of `opens`
    // Numbers of the last requests that were counted: one that is sent again is not counted twice.
    uint64_t next_noted;
    uint64_t noted[FL_FILES_NOTED];
    struct fl_files_entry entry[FL_FILES_MOST];
};

// A new one, or that of a predecessor. The caller keeps the descriptor. -EPROTONOSUPPORT: it is of
// another version; -EINVAL: it is none.
int fl_files_state_new(int *ret_fd, struct fl_files_state **ret_state);
int fl_files_state_open(int fd, struct fl_files_state **ret_state);
void fl_files_state_unmap(struct fl_files_state *state); // NULL is a no-op

// The files' thread. NULL: there is no room.
struct fl_files_entry *fl_files_state_add(struct fl_files_state *state, uint64_t record);
// Notes that a LOOKUP, OPEN or RELEASE is counted; false if it was noted before.
bool fl_files_state_note(struct fl_files_state *state, uint64_t unique);

#endif
