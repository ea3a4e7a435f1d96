// SPDX-License-Identifier: Apache-2.0
//
// The packs that are in the store, whoever refers to them. One thread.
#ifndef FAULTLINE_SNAPSHOT_PACK_LIST_H
#define FAULTLINE_SNAPSHOT_PACK_LIST_H

#include <stddef.h>
#include <stdint.h>

struct fl_pack_ids {
    uint64_t *ids; // free() it
    size_t count, room;
};

int fl_pack_ids_add(struct fl_pack_ids *ids, uint64_t id);
// Appends the packs of the directory, in no order. Files of other names are left out.
int fl_pack_ids_list(int packs_fd, struct fl_pack_ids *ids);

// Calls fn for each file name of a directory but "." and ".."; stops at its first result that is
// not 0.
int fl_each_file(int dir_fd, int (*fn)(void *arg, const char *name), void *arg);

#endif
