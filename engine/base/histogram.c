// SPDX-License-Identifier: Apache-2.0
#include "engine/base/histogram.h"

// Values below 16 have a bucket each; above, the four bits after the leading one choose the step.
static unsigned bucket_of(uint64_t value)
{
    if (value < FL_HISTOGRAM_STEPS)
        return (unsigned)value;
    unsigned shift = 63U - (unsigned)__builtin_clzll(value) - 4U;
    return (shift + 1) * FL_HISTOGRAM_STEPS +
           (unsigned)((value >> shift) & (FL_HISTOGRAM_STEPS - 1));
}

uint64_t fl_histogram_bucket_end(unsigned bucket)
{
    if (bucket < FL_HISTOGRAM_STEPS)
        return bucket;
    unsigned shift = bucket / FL_HISTOGRAM_STEPS - 1;
    uint64_t step = bucket % FL_HISTOGRAM_STEPS + FL_HISTOGRAM_STEPS;
    return (step << shift) + ((1ULL << shift) - 1);
}

void fl_histogram_add(struct fl_histogram *histogram, uint64_t value)
{
    fl_counter_add(&histogram->count[bucket_of(value)], 1);
    fl_counter_add(&histogram->sum, value);
    if (value > fl_counter_get(&histogram->max))
        atomic_store_explicit(&histogram->max, value, memory_order_relaxed);
}

void fl_histogram_add_many(struct fl_histogram *histogram, uint64_t value, uint64_t times)
{
    fl_counter_add(&histogram->count[bucket_of(value)], times);
    fl_counter_add(&histogram->sum, value * times);
    if (times > 0 && value > fl_counter_get(&histogram->max))
        atomic_store_explicit(&histogram->max, value, memory_order_relaxed);
}

void fl_histogram_merge(struct fl_histogram *into, const struct fl_histogram *from)
{
    for (unsigned i = 0; i < FL_HISTOGRAM_BUCKETS; i++)
        fl_counter_add(&into->count[i], fl_counter_get(&from->count[i]));
    fl_counter_add(&into->sum, fl_counter_get(&from->sum));
    uint64_t max = fl_counter_get(&from->max);
    if (max > fl_counter_get(&into->max))
        atomic_store_explicit(&into->max, max, memory_order_relaxed);
}

uint64_t fl_histogram_total(const struct fl_histogram *histogram)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < FL_HISTOGRAM_BUCKETS; i++)
        total += fl_counter_get(&histogram->count[i]);
    return total;
}

uint64_t fl_histogram_below(const struct fl_histogram *histogram, unsigned exponent)
{
    unsigned end = bucket_of(1ULL << exponent);
    uint64_t below = 0;
    for (unsigned i = 0; i < end; i++)
        below += fl_counter_get(&histogram->count[i]);
    return below;
}

uint64_t fl_histogram_quantile(const struct fl_histogram *histogram, double share)
{
    uint64_t total = fl_histogram_total(histogram);
    uint64_t max = fl_counter_get(&histogram->max);
    uint64_t wanted = (uint64_t)((double)total * share + 0.5);
    uint64_t seen = 0;
    for (unsigned i = 0; i < FL_HISTOGRAM_BUCKETS && total > 0; i++) {
        seen += fl_counter_get(&histogram->count[i]);
        if (seen >= wanted && seen > 0) {
            uint64_t end = fl_histogram_bucket_end(i);
            return end < max ? end : max;
        }
    }
    return max;
}
