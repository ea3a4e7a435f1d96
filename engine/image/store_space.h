// SPDX-License-Identifier: Apache-2.0
//
// How much the store takes on its file system, and how much is free there. Storage that hangs must
// hang no thread that VMs depend on: a thread of its own looks, when it is asked to, and the last
// that it has seen is what there is to say. How old that is tells of storage that hangs.
#ifndef FAULTLINE_IMAGE_STORE_SPACE_H
#define FAULTLINE_IMAGE_STORE_SPACE_H

#include <stdint.h>

struct fl_store_space;

// All of it UINT64_MAX as long as it is not known.
struct fl_store_space_now {
    uint64_t bytes;  // of the disk, that the store's files take
    uint64_t size;   // of its file system
    uint64_t free;   // of it, for processes without privileges
    uint64_t age_ns; // since these were true
};

// Control thread. NULL without memory. The path is the caller's, and is copied.
// Looks where it leads, which may wait for storage: before there are VMs.
struct fl_store_space *fl_store_space_new(const char *store);
// Control thread. NULL is a no-op. Does not wait for the thread, which may be held up by storage.
void fl_store_space_free(struct fl_store_space *space);
// Control thread. The store's path, which begins with '/' if that could be found out. NULL for
// NULL.
const char *fl_store_space_path(const struct fl_store_space *space);
// Control thread, never waits. Has it looked at if the last look is some time ago, and says what
// that has seen. For NULL nothing is known.
struct fl_store_space_now fl_store_space_now(struct fl_store_space *space);

#endif
