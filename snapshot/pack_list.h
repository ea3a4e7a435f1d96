// SPDX-License-Identifier: Apache-2.0
//
// Lists the packs of a store, also those that no image refers to. One thread.
#ifndef FAULTLINE_SNAPSHOT_PACK_LIST_H
#define FAULTLINE_SNAPSHOT_PACK_LIST_H

#include <stddef.h>
#include <stdint.h>

struct fl_pack_ids {
    uint64_t *ids; // the caller frees it
    size_t count, room;
};

int fl_pack_ids_add(struct fl_pack_ids *ids, uint64_t id);
// Appends the packs of the directory, in no order. Leaves files of other names out. -ENOMEM, errors
// of reading the directory.
int fl_pack_ids_list(int packs_fd, struct fl_pack_ids *ids);

// Calls fn for each file name of a directory but "." and "..". Stops at its first result that is
// not 0, and returns it.
int fl_each_file(int dir_fd, int (*fn)(void *arg, const char *name), void *arg);

#endif
