// SPDX-License-Identifier: Apache-2.0
//
// Neighbours of a page that was asked for: what prefetch.h decides, within what the VM, the image
// and the memory so far allow. Owner worker only.
#ifndef FAULTLINE_SERVE_FAULT_AROUND_H
#define FAULTLINE_SERVE_FAULT_AROUND_H

#include <stdint.h>

#include "snapshot/read.h"

struct fl_shard;
struct fl_vm;

// A fault asks for `asked` pages (at least 1) from `page` on. How many to install at once, if it
// can be done. Has the frames read that a sweep will need next. *ret_run: what the image has for
// these pages, if that had to be looked up; .pages of 0 else.
uint32_t fl_fault_around(struct fl_shard *shard, struct fl_vm *vm, uint64_t page, uint32_t asked,
                         struct fl_run *ret_run);

#endif
