// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <stdlib.h>

#include "engine/base/histogram.h"

static struct fl_histogram histogram;

Test(histogram, knows_every_value_to_a_sixteenth)
{
    for (uint64_t value = 1; value < (1ULL << 62); value = value * 5 / 3 + 1) {
        static struct fl_histogram one;
        one = (struct fl_histogram){0};
        fl_histogram_add(&one, value);
        fl_histogram_add(&one, UINT64_MAX); // so that the maximum does not cap the answer
        uint64_t end = fl_histogram_quantile(&one, 0.5);
        cr_assert_geq(end, value);
        cr_assert_leq(end - value, value / 16);
    }
}

Test(histogram, quantiles_of_a_known_set)
{
    for (uint64_t value = 1; value <= 1000; value++)
        fl_histogram_add(&histogram, value);
    cr_assert_eq(fl_histogram_total(&histogram), 1000);
    uint64_t median = fl_histogram_quantile(&histogram, 0.5);
    cr_assert(median >= 500 && median <= 532);
    uint64_t p99 = fl_histogram_quantile(&histogram, 0.99);
    cr_assert(p99 >= 990 && p99 <= 1000);
    cr_assert_eq(fl_histogram_quantile(&histogram, 1), 1000);
}

Test(histogram, merges)
{
    static struct fl_histogram other;
    fl_histogram_add(&histogram, 10);
    fl_histogram_add(&other, 5000);
    fl_histogram_merge(&histogram, &other);
    cr_assert_eq(fl_histogram_total(&histogram), 2);
    cr_assert_eq(fl_histogram_quantile(&histogram, 1), 5000);
    cr_assert_eq(fl_histogram_quantile(&histogram, 0.5), 10);
}

// A value that is a power of two is not below it.
Test(histogram, knows_how_many_are_below_a_power_of_two)
{
    for (unsigned exponent = 4; exponent < 60; exponent++) {
        static struct fl_histogram one;
        one = (struct fl_histogram){0};
        fl_histogram_add(&one, (1ULL << exponent) - 1);
        fl_histogram_add(&one, 1ULL << exponent);
        cr_assert_eq(fl_histogram_below(&one, exponent), 1, "%u", exponent);
        cr_assert_eq(fl_histogram_below(&one, exponent + 1), 2, "%u", exponent);
    }
}

Test(histogram, of_nothing_is_zero)
{
    cr_assert_eq(fl_histogram_quantile(&histogram, 0.99), 0);
}
