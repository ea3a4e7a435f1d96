// SPDX-License-Identifier: Apache-2.0
#include "bench/common/histogram.h"

// Values below BENCH_HIST_SUB have a bucket each; above, the leading bit chooses the group and the
// next BENCH_HIST_BITS bits the bucket in it.
static uint32_t bucket_of(uint64_t ns)
{
    if (ns < BENCH_HIST_SUB)
        return (uint32_t)ns;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(ns) - BENCH_HIST_BITS;
    uint32_t bucket = (shift + 1) * BENCH_HIST_SUB + (uint32_t)(ns >> shift) - BENCH_HIST_SUB;
    return bucket < BENCH_HIST_BUCKETS ? bucket : BENCH_HIST_BUCKETS - 1;
}

static uint64_t upper_bound(uint32_t bucket)
{
    if (bucket < BENCH_HIST_SUB)
        return bucket;
    uint32_t shift = bucket / BENCH_HIST_SUB - 1;
    uint64_t leading = BENCH_HIST_SUB + bucket % BENCH_HIST_SUB;
    return ((leading + 1) << shift) - 1;
}

void bench_hist_add(struct bench_hist *hist, uint64_t ns)
{
    hist->count++;
    hist->sum_ns += ns;
    if (ns > hist->max_ns)
        hist->max_ns = ns;
    hist->bucket[bucket_of(ns)]++;
}

void bench_hist_merge(struct bench_hist *into, const struct bench_hist *from)
{
    into->count += from->count;
    into->sum_ns += from->sum_ns;
    if (from->max_ns > into->max_ns)
        into->max_ns = from->max_ns;
    for (uint32_t i = 0; i < BENCH_HIST_BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
}

uint64_t bench_hist_quantile(const struct bench_hist *hist, double q)
{
    if (hist->count == 0)
        return 0;
    double exact = q * (double)hist->count;
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact)
        rank++;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < BENCH_HIST_BUCKETS; i++) {
        seen += hist->bucket[i];
        if (seen < rank)
            continue;
        // The last bucket also holds all longer values: only max_ns bounds it.
        uint64_t bound = i == BENCH_HIST_BUCKETS - 1 ? hist->max_ns : upper_bound(i);
        return bound < hist->max_ns ? bound : hist->max_ns;
    }
    return hist->max_ns;
}
