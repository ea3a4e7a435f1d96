// SPDX-License-Identifier: Apache-2.0
//
// Filling out of the page cache. A raw memory file that is in the page cache needs no second copy
// in the frame cache, whose memory would be new and cost more than the filling: it is read into a
// small buffer of the VM's, which stays warm, and put into the VM from there. Pages that turn out
// to be zeros are not copied. What the page cache has not is left to the frames, which are read
// far ahead.
//
// Owner worker only.
#ifndef FAULTLINE_AHEAD_FILL_DIRECT_H
#define FAULTLINE_AHEAD_FILL_DIRECT_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/serve/install.h"

struct fl_vm;

// What was done of pages in a row: the last call of the kernel for them, and how many are there.
struct fl_filled {
    enum fl_install result;
    uint64_t pages;
};

// [vm->fill.next, end) is neither there nor removed, within one region, and the image has bytes for
// its first page: fills some of it. False if nothing of it can be had in this way.
bool fl_fill_direct(struct fl_vm *vm, uint64_t end, struct fl_filled *ret_filled);
// The buffer goes. Any thread, when no owner fills the VM.
void fl_fill_direct_end(struct fl_vm *vm);

#endif
