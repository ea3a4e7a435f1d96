// SPDX-License-Identifier: Apache-2.0
//
// Counters with one writer and any number of readers: no locked instruction, no torn value.
#ifndef FAULTLINE_BASE_COUNTER_H
#define FAULTLINE_BASE_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t fl_counter;

static inline uint64_t fl_counter_get(const fl_counter *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

// The one writer only.
static inline void fl_counter_set(fl_counter *counter, uint64_t value)
{
    atomic_store_explicit(counter, value, memory_order_relaxed);
}

static inline void fl_counter_add(fl_counter *counter, uint64_t more)
{
    atomic_store_explicit(counter, fl_counter_get(counter) + more, memory_order_relaxed);
}

static inline void fl_counter_sub(fl_counter *counter, uint64_t less)
{
    atomic_store_explicit(counter, fl_counter_get(counter) - less, memory_order_relaxed);
}

#endif
