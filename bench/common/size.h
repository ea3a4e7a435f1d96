// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_BENCH_COMMON_SIZE_H
#define FAULTLINE_BENCH_COMMON_SIZE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// A whole number with an optional K, M or G (powers of 1024); true if `text` is one and fits.
static inline bool bench_parse_size(const char *text, uint64_t *ret_size)
{
    static const char units[] = "KMG";
    if (text[0] < '0' || text[0] > '9')
        return false;
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    uint32_t shift = 0;
    if (*end != '\0') {
        const char *unit = strchr(units, *end);
        if (unit == NULL || end[1] != '\0')
            return false;
        shift = 10 * ((uint32_t)(unit - units) + 1);
    }
    if (value > UINT64_MAX >> shift)
        return false;
    *ret_size = value << shift;
    return true;
}

#endif
