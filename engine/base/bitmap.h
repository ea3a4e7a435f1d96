// SPDX-License-Identifier: Apache-2.0
//
// Ranges of bits in an array of words. One owner: no synchronization.
#ifndef FAULTLINE_BASE_BITMAP_H
#define FAULTLINE_BASE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline size_t fl_bitmap_bytes(uint64_t bits)
{
    return (size_t)((bits + 63) / 64 * 8);
}

static inline bool fl_bit_test(const uint64_t *map, uint64_t bit)
{
    return (map[bit / 64] >> (bit % 64)) & 1;
}

// Only where it changes something: pages of an untouched map stay unreal.
static inline void fl_bit_set(uint64_t *map, uint64_t bit)
{
    if (!fl_bit_test(map, bit))
        map[bit / 64] |= 1ULL << (bit % 64);
}

// Set or clear [first, first + count); the result is how many bits changed.
uint64_t fl_bits_set(uint64_t *map, uint64_t first, uint64_t count);
uint64_t fl_bits_clear(uint64_t *map, uint64_t first, uint64_t count);

// The first bit in [first, end) that is set in neither map (or in either map); end if there is
// none.
uint64_t fl_bits_next_clear(const uint64_t *a, const uint64_t *b, uint64_t first, uint64_t end);
uint64_t fl_bits_next_set(const uint64_t *a, const uint64_t *b, uint64_t first, uint64_t end);

#endif
