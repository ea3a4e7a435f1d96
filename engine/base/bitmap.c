// SPDX-License-Identifier: Apache-2.0
#include "engine/base/bitmap.h"

// The bits of one word from `first` on, at most `count` of them.
static uint64_t word_mask(uint64_t first, uint64_t count)
{
    uint64_t low = first % 64;
    uint64_t bits = 64 - low < count ? 64 - low : count;
    uint64_t ones = bits == 64 ? ~0ULL : (1ULL << bits) - 1;
    return ones << low;
}

static uint64_t change(uint64_t *map, uint64_t first, uint64_t count, bool set)
{
    uint64_t changed = 0;
    while (count > 0) {
        uint64_t mask = word_mask(first, count);
        uint64_t *word = &map[first / 64];
        uint64_t now = set ? *word | mask : *word & ~mask;
        changed += (uint64_t)__builtin_popcountll(now ^ *word);
        if (now != *word) // do not make pages of an untouched map real
            *word = now;
        uint64_t step = (uint64_t)__builtin_popcountll(mask);
        first += step;
        count -= step;
    }
    return changed;
}

uint64_t fl_bits_set(uint64_t *map, uint64_t first, uint64_t count)
{
    return change(map, first, count, true);
}

uint64_t fl_bits_clear(uint64_t *map, uint64_t first, uint64_t count)
{
    return change(map, first, count, false);
}

static uint64_t next(const uint64_t *a, const uint64_t *b, uint64_t first, uint64_t end,
                     uint64_t flip)
{
    while (first < end) {
        uint64_t word = ((a[first / 64] | b[first / 64]) ^ flip) & word_mask(first, 64);
        if (word) {
            uint64_t found = first / 64 * 64 + (uint64_t)__builtin_ctzll(word);
            return found < end ? found : end;
        }
        first = (first / 64 + 1) * 64;
    }
    return end;
}

uint64_t fl_bits_next_clear(const uint64_t *a, const uint64_t *b, uint64_t first, uint64_t end)
{
    return next(a, b, first, end, ~0ULL);
}

uint64_t fl_bits_next_set(const uint64_t *a, const uint64_t *b, uint64_t first, uint64_t end)
{
    return next(a, b, first, end, 0);
}
