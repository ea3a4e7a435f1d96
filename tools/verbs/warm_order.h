// SPDX-License-Identifier: Apache-2.0
//
// Which parts of an image's file to bring into the page cache, and in which order: `faultline
// warm`.
#ifndef FAULTLINE_TOOLS_VERBS_WARM_ORDER_H
#define FAULTLINE_TOOLS_VERBS_WARM_ORDER_H

#include <stdint.h>

#include "snapshot/read.h"

// What the kernel reads for one readahead() of such a file, and no more (Linux 6.18: 128 KiB).
enum { WARM_PART_PAGES = 32 };

struct warm_part {
    uint64_t first; // page of the image
    uint32_t pages; // WARM_PART_PAGES at most
};

struct warm_order {
    struct warm_part *part;
    uint64_t parts;
    uint64_t pages; // of all parts
};

// In the trace's order, `most` pages at most. Neighbours are one part, also those that a few pages
// lie between. -ENOMEM.
int warm_order_of_trace(const struct fl_trace *trace, uint64_t most, struct warm_order *ret_order);
// All `pages` pages of a file, from the first on. -ENOMEM.
int warm_order_of_all(uint64_t pages, uint64_t most, struct warm_order *ret_order);
void warm_order_free(struct warm_order *order);

#endif
