// SPDX-License-Identifier: Apache-2.0
//
// The order in which a VM's pages are touched.
#ifndef FAULTLINE_BENCH_ORDER_H
#define FAULTLINE_BENCH_ORDER_H

#include <stdint.h>

#include "bench/vm.h"

// xorshift64*: deterministic, so that a run can be repeated. *state must not be 0.
uint64_t bench_random(uint64_t *state);

// The first `want` pages (fewer if there are fewer) of an order over pages 0 to `pages` - 1. The
// caller frees *ret_order. -EINVAL: the recorded order names a page beyond the memory or no page at
// all.
int bench_order_make(const struct bench_options *options, uint64_t pages, uint64_t want,
                     uint64_t seed, uint32_t **ret_order, uint64_t *ret_count);

#endif
