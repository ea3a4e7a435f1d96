// SPDX-License-Identifier: Apache-2.0
//
// Time in nanoseconds, from a clock that never goes back. Any thread.
#ifndef FAULTLINE_BASE_CLOCK_H
#define FAULTLINE_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define FL_NS_PER_US UINT64_C(1000)
#define FL_NS_PER_MS UINT64_C(1000000)
#define FL_NS_PER_S UINT64_C(1000000000)
#define FL_NEVER UINT64_MAX // a time that does not come

// CLOCK_MONOTONIC in nanoseconds.
static inline uint64_t fl_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * FL_NS_PER_S + (uint64_t)now.tv_nsec;
}

// From now until `when`, zero if it has passed.
static inline struct timespec fl_until(uint64_t now, uint64_t when)
{
    uint64_t left = when > now ? when - now : 0;
    return (struct timespec){.tv_sec = (time_t)(left / FL_NS_PER_S),
                             .tv_nsec = (long)(left % FL_NS_PER_S)};
}

#endif
