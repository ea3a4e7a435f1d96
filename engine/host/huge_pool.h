// SPDX-License-Identifier: Apache-2.0
//
// The host's pool of pages of 2 MiB. Any thread; reads /sys.
#ifndef FAULTLINE_HOST_HUGE_POOL_H
#define FAULTLINE_HOST_HUGE_POOL_H

#include <stdint.h>

// Documentation/admin-guide/mm/hugetlbpage.rst. In pages.
struct fl_huge_pool {
    uint64_t total;
    uint64_t free;
    uint64_t reserved; // of those that are free: promised to mappings made without MAP_NORESERVE
    uint64_t surplus;  // of all: beyond nr_hugepages, by nr_overcommit_hugepages
};

// All zero where the kernel has none.
struct fl_huge_pool fl_huge_pool_read(void);

// Those that a mapping without a reservation can get.
static inline uint64_t fl_huge_pool_available(const struct fl_huge_pool *pool)
{
    return pool->free > pool->reserved ? pool->free - pool->reserved : 0;
}

#endif
