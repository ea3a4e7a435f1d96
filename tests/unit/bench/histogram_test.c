// SPDX-License-Identifier: Apache-2.0
//
// The histogram's promises: exact below 64 ns, a quantile never below the true one and at most 1/64
// above it, the maximum exact, merging the same as adding to one.
#include <inttypes.h>
#include <stdio.h>

#include "bench/common/histogram.h"

static int failures;

static void expect_between(const char *what, uint64_t got, uint64_t low, uint64_t high)
{
    if (got >= low && got <= high)
        return;
    fprintf(stderr, "%s: %" PRIu64 " is not in %" PRIu64 "..%" PRIu64 "\n", what, got, low, high);
    failures++;
}

static void small_values_are_exact(void)
{
    static struct bench_hist hist;
    for (uint64_t ns = 1; ns <= 60; ns++)
        bench_hist_add(&hist, ns);
    expect_between("p50 of 1..60", bench_hist_quantile(&hist, .5), 30, 30);
    expect_between("p90 of 1..60", bench_hist_quantile(&hist, .9), 54, 54);
    expect_between("p100 of 1..60", bench_hist_quantile(&hist, 1), 60, 60);
}

static void large_values_are_close(void)
{
    for (uint64_t ns = 64; ns < UINT64_C(1) << 39; ns += ns / 7 + 1) {
        struct bench_hist hist = {0};
        bench_hist_add(&hist, ns);
        bench_hist_add(&hist, UINT64_C(1)
                                  << 39); // a larger one, so that the maximum does not bound it
        expect_between("a large value", bench_hist_quantile(&hist, .5), ns, ns + ns / 64);
    }
}

static void too_large_values_keep_the_maximum(void)
{
    static struct bench_hist hist;
    bench_hist_add(&hist, UINT64_C(1) << 50);
    expect_between("beyond the range", bench_hist_quantile(&hist, .99), UINT64_C(1) << 50,
                   UINT64_C(1) << 50);
}

static void merging_adds(void)
{
    static struct bench_hist one, two;
    for (uint64_t i = 0; i < 100; i++)
        bench_hist_add(i < 50 ? &one : &two, i < 50 ? 10 : 5000);
    bench_hist_merge(&one, &two);
    expect_between("count", one.count, 100, 100);
    expect_between("sum", one.sum_ns, 50 * 10 + 50 * 5000, 50 * 10 + 50 * 5000);
    expect_between("p50", bench_hist_quantile(&one, .5), 10, 10);
    expect_between("p51", bench_hist_quantile(&one, .51), 5000, 5000);
}

static void empty_is_zero(void)
{
    static struct bench_hist hist;
    expect_between("empty", bench_hist_quantile(&hist, .99), 0, 0);
}

int main(void)
{
    small_values_are_exact();
    large_values_are_close();
    too_large_values_keep_the_maximum();
    merging_adds();
    empty_is_zero();
    return failures == 0 ? 0 : 1;
}
