// SPDX-License-Identifier: Apache-2.0
#include "bench/common/machine.h"

#include <inttypes.h>
#include <stdio.h>

uint64_t bench_machine_busy_ns(void)
{
    uint64_t t[8] = {0}; // user nice system idle iowait irq softirq steal
    FILE *file = fopen("/proc/stat", "re");
    if (file == NULL)
        return 0;
    int got = fscanf(file,
                     "cpu %" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64
                     "%" SCNu64 "%" SCNu64,
                     &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]);
    fclose(file);
    return got == 8 ? (t[0] + t[1] + t[2] + t[5] + t[6] + t[7]) * 10000000 : 0;
}
