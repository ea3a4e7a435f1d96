// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_BENCH_COMMON_CLOCK_H
#define FAULTLINE_BENCH_COMMON_CLOCK_H

#include <stdint.h>
#include <time.h>

// Returns the nanoseconds of `clock`, or 0 if that clock does not exist (any more).
static inline uint64_t bench_clock_ns(clockid_t clock)
{
    struct timespec ts;
    if (clock_gettime(clock, &ts) != 0)
        return 0;
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline uint64_t bench_now_ns(void)
{
    return bench_clock_ns(CLOCK_MONOTONIC);
}

#endif
