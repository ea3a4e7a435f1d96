// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdlib.h>

#include "engine/base/bitmap.h"

enum { BITS = 400, ROUNDS = 3000 };

static uint64_t naive_next(const bool *a, const bool *b, uint64_t first, uint64_t end, bool set)
{
    while (first < end && (a[first] || b[first]) != set)
        first++;
    return first;
}

// Random ranges, held against one bool a bit.
Test(bitmap, agrees_with_a_plain_array)
{
    uint64_t maps[2][(BITS + 63) / 64] = {{0}};
    bool plain[2][BITS] = {{false}};
    srand(1);
    for (int round = 0; round < ROUNDS; round++) {
        unsigned which = (unsigned)rand() % 2;
        uint64_t first = (uint64_t)rand() % BITS;
        uint64_t count = (uint64_t)rand() % (BITS - first + 1);
        bool set = rand() % 2;
        uint64_t expected = 0;
        for (uint64_t i = first; i < first + count; i++) {
            expected += plain[which][i] != set;
            plain[which][i] = set;
        }
        uint64_t changed =
            set ? fl_bits_set(maps[which], first, count) : fl_bits_clear(maps[which], first, count);
        cr_assert_eq(changed, expected);
        uint64_t from = (uint64_t)rand() % BITS;
        uint64_t end = from + (uint64_t)rand() % (BITS - from + 1);
        cr_assert_eq(fl_bits_next_set(maps[0], maps[1], from, end),
                     naive_next(plain[0], plain[1], from, end, true));
        cr_assert_eq(fl_bits_next_clear(maps[0], maps[1], from, end),
                     naive_next(plain[0], plain[1], from, end, false));
        cr_assert_eq(fl_bit_test(maps[which], from), plain[which][from]);
    }
}
