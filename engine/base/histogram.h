// SPDX-License-Identifier: Apache-2.0
//
// A latency histogram of one writer: 16 linear steps in each power of two, so a value is known to 6
// %. (hdr_histogram, which does the same, is not in Debian 12.) The writer adds without a locked
// instruction; readers in other threads see counts that are at most a moment old.
#ifndef FAULTLINE_BASE_HISTOGRAM_H
#define FAULTLINE_BASE_HISTOGRAM_H

#include <stdint.h>

#include "engine/base/counter.h"

enum { FL_HISTOGRAM_STEPS = 16, FL_HISTOGRAM_BUCKETS = 61 * FL_HISTOGRAM_STEPS };

struct fl_histogram {
    fl_counter count[FL_HISTOGRAM_BUCKETS];
    fl_counter max;
    fl_counter sum;
};

// Writer only.
void fl_histogram_add(struct fl_histogram *histogram, uint64_t value);

// The same for so many equal values.
void fl_histogram_add_many(struct fl_histogram *histogram, uint64_t value, uint64_t times);

// The largest value that a bucket holds; the least is that of the bucket before, and one.
uint64_t fl_histogram_bucket_end(unsigned bucket);

// Any thread: adds from's counts to the plain sums in `into`, which one thread owns.
void fl_histogram_merge(struct fl_histogram *into, const struct fl_histogram *from);
uint64_t fl_histogram_total(const struct fl_histogram *histogram);
// How many values are below 2 to the power of `exponent`, which is 4 to 63: exact, as buckets end
// there.
uint64_t fl_histogram_below(const struct fl_histogram *histogram, unsigned exponent);
// The upper end of the bucket that holds the given share (0..1) of the values, at most the maximum.
uint64_t fl_histogram_quantile(const struct fl_histogram *histogram, double share);

#endif
