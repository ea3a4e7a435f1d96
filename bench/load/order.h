// SPDX-License-Identifier: Apache-2.0
//
// The order in which a VM's pages are touched and, if the order was recorded, when.
#ifndef FAULTLINE_BENCH_LOAD_ORDER_H
#define FAULTLINE_BENCH_LOAD_ORDER_H

#include <stdint.h>

#include "bench/load/vm.h"

struct bench_touch {
    uint32_t page;
    uint32_t ms; // after the VM was attached; 0 where that was not recorded
};

// Returns the next number of xorshift64*, so that a run can be repeated. *state must not be 0.
uint64_t bench_random(uint64_t *state);

// Makes an order over the pages 0 to `pages` - 1 and returns its first `want` touches, or all if
// there are fewer. A recorded order has lines of PAGE or PAGE MS; the page of number `pages`, which
// is the last of the VM's memory, is left out. The caller frees *ret_order. -EINVAL: the file names
// a page beyond the memory, or no page at all.
int bench_order_make(const struct load_options *options, uint64_t pages, uint64_t want,
                     uint64_t seed, struct bench_touch **ret_order, uint64_t *ret_count);

#endif
