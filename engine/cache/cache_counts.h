// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CACHE_CACHE_COUNTS_H
#define FAULTLINE_CACHE_CACHE_COUNTS_H

#include <stdatomic.h>
#include <stdint.h>

// What the cache counts. Any thread adds to it.
struct fl_cache_counts {
    _Atomic uint64_t reads;
    _Atomic uint64_t read_errors;
    _Atomic uint64_t failed;
    _Atomic uint64_t evictions;
    _Atomic uint64_t promoted;
    _Atomic uint64_t ahead_frames; // brought by extents
    _Atomic uint64_t ahead_bytes;  // of extents
    _Atomic uint64_t ahead_extents;
    _Atomic uint64_t ahead_errors; // extents, or frames in them, that had to be read one by one
    _Atomic uint64_t taken;        // frames that one alone had use for
};

#endif
