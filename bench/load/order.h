// SPDX-License-Identifier: Apache-2.0
//
// The order in which a VM's pages are touched, and when, if it was recorded.
#ifndef FAULTLINE_BENCH_LOAD_ORDER_H
#define FAULTLINE_BENCH_LOAD_ORDER_H

#include <stdint.h>

#include "bench/load/vm.h"

struct bench_touch {
    uint32_t page;
    uint32_t ms; // after the VM was attached; 0 where that was not recorded
};

// xorshift64*: deterministic, so that a run can be repeated. *state must not be 0.
uint64_t bench_random(uint64_t *state);

// The first `want` touches (fewer if there are fewer) of an order over pages 0 to `pages` - 1. A
// recorded one has lines of PAGE or PAGE MS; page number `pages`, the last of the VM's memory, is
// left out. The caller frees *ret_order. -EINVAL: it names a page beyond the memory, or no page.
int bench_order_make(const struct load_options *options, uint64_t pages, uint64_t want,
                     uint64_t seed, struct bench_touch **ret_order, uint64_t *ret_count);

#endif
