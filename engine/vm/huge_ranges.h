// SPDX-License-Identifier: Apache-2.0
//
// The aligned ranges of 2 MiB of a VM of 4 KiB pages: how much of each is in the VM's working set,
// and what has become of it (ahead/collapse.h). Owner only.
#ifndef FAULTLINE_VM_HUGE_RANGES_H
#define FAULTLINE_VM_HUGE_RANGES_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/host/region.h"

// Moves: COLD for good. HOT -> HUGE, HOT -> LEFT; HUGE -> LEFT when a part of it was given back;
// HUGE -> HOT when a capture may have split it.
enum fl_range_state {
    FL_RANGE_COLD, // too little of it is in the working set
    FL_RANGE_HOT,  // to be one page
    FL_RANGE_HUGE, // it was made one page, and nothing has told of its end
    FL_RANGE_LEFT, // it cannot be, or is not worth it
};

struct fl_huge_range {
    uint16_t pages; // of the working set that are in it
    uint8_t state;  // enum fl_range_state
    uint8_t tries;  // in vain
};

struct fl_huge_ranges {
    uint64_t count;
    uint64_t hot;  // of all that were not COLD at first
    uint64_t huge; // now
    struct fl_huge_range *range;
};

// `set`: bitmap of the image's pages, `image_pages` of them. Ranges with at least `least` pages in
// it are HOT. -ENOMEM.
int fl_huge_ranges_init(struct fl_huge_ranges *ranges, const struct fl_layout *layout,
                        const uint64_t *set, uint64_t image_pages, unsigned least);
void fl_huge_ranges_fini(struct fl_huge_ranges *ranges);

// The first page of range `index`, which is below `count`.
uint64_t fl_huge_range_page(const struct fl_layout *layout, uint64_t index);
// The range that the page is in; false if it is in none.
bool fl_huge_range_of(const struct fl_layout *layout, uint64_t page, uint64_t *ret_index);
void fl_huge_range_move(struct fl_huge_ranges *ranges, uint64_t index, enum fl_range_state to);
// How many of the `count` pages of zeros from this one on can be put there in one go; *ret_own: as
// pages of their own, as they are in a range that is to be one page, and 512 at most. The kernel
// takes no range in which the shared page of zeros is.
uint64_t fl_huge_ranges_span(const struct fl_huge_ranges *ranges, const struct fl_layout *layout,
                             uint64_t page, uint64_t count, bool *ret_own);
// Pages were given back: what is huge there is split. How many were.
uint64_t fl_huge_ranges_removed(struct fl_huge_ranges *ranges, const struct fl_layout *layout,
                                uint64_t page, uint64_t count);

#endif
