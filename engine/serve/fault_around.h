// SPDX-License-Identifier: Apache-2.0
//
// Neighbours of a page that was asked for: what prefetch.h decides, within what the VM, the image
// and the memory so far allow. Owner worker only.
#ifndef FAULTLINE_SERVE_FAULT_AROUND_H
#define FAULTLINE_SERVE_FAULT_AROUND_H

#include <stdbool.h>
#include <stdint.h>

#include "snapshot/read.h"

struct fl_shard;
struct fl_vm;

struct fl_around {
    uint32_t pages;    // to be installed at once, from the first one that was asked for on
    struct fl_run run; // what is there for them, if that had to be looked up; .pages of 0 else
    bool zeros;        // they are zeros, whatever the image has, and `before` pages are as well
    uint32_t before;
};

// A fault, which is a write or is none, asks for `asked` pages (at least 1) from `page` on. What to
// install with them, if it can be done. Has the frames read that a sweep will need next.
struct fl_around fl_fault_around(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                                 uint32_t asked, bool write);

#endif
