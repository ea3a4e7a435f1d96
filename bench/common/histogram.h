// SPDX-License-Identifier: Apache-2.0
//
// A log-linear histogram of nanoseconds: each power of two is cut into BENCH_HIST_SUB equal
// buckets, so a quantile is at most 1/64 (1.6 %) above the true one. Fixed size and free of
// pointers, so that it can live in memory shared by processes. One thread writes to a histogram;
// merge it after that thread has stopped.
#ifndef FAULTLINE_BENCH_COMMON_HISTOGRAM_H
#define FAULTLINE_BENCH_COMMON_HISTOGRAM_H

#include <stdint.h>

#define BENCH_HIST_BITS 6
#define BENCH_HIST_SUB (1u << BENCH_HIST_BITS)
// Up to 2^40 ns (18 minutes). The last bucket counts longer values, too; max_ns is always exact.
#define BENCH_HIST_BUCKETS ((40 - BENCH_HIST_BITS + 1) * BENCH_HIST_SUB)

// All zero is an empty histogram.
struct bench_hist {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t max_ns;
    uint64_t bucket[BENCH_HIST_BUCKETS];
};

void bench_hist_add(struct bench_hist *hist, uint64_t ns);
void bench_hist_merge(struct bench_hist *into, const struct bench_hist *from);
// Returns the upper bound of the bucket that holds the value of rank ceil(q * count), but no more
// than max_ns; 0 for an empty histogram. 0 < q <= 1.
uint64_t bench_hist_quantile(const struct bench_hist *hist, double q);

#endif
