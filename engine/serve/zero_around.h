// SPDX-License-Identifier: Apache-2.0
//
// Zeros around a page that was asked for: what zero_runs.h decides, within what the VM, its image
// and its memory allow. Only the shared zero page is put there, so there is nothing to give back
// when memory is short. Owner worker only.
#ifndef FAULTLINE_SERVE_ZERO_AROUND_H
#define FAULTLINE_SERVE_ZERO_AROUND_H

#include <stdbool.h>
#include <stdint.h>

struct fl_shard;
struct fl_vm;

struct fl_zero_around {
    uint32_t before; // pages to be brought before the one that was asked for,
    uint32_t pages;  // and from that one on, with it; 0: it is not one of these zeros
};

// A write asks for `asked` pages (at least 1) of 4 KiB from `page` on. Nothing comes ahead while
// the VM is short of memory.
struct fl_zero_around fl_zero_around(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                                     uint32_t asked);
// ... of which `there` are there now, from `page` on: puts those before it, and notes all of them.
// The VM may have gone afterwards.
void fl_zero_around_before(struct fl_shard *shard, struct fl_vm *vm, uint64_t page, uint32_t asked,
                           uint32_t there, uint32_t before);

#endif
