// SPDX-License-Identifier: Apache-2.0
#include "snapshot/pace.h"

#include <stdbool.h>
#include <time.h>

#include "snapshot/store_dir.h"

#define SLEEP_MOST 0.05 // seconds: so soon a stop is seen

void fl_pace_count(struct fl_pace *pace, uint64_t bytes)
{
    if (pace->rate == 0)
        return;
    if (pace->start == 0)
        pace->start = fl_seconds_wall();
    pace->bytes += bytes;
    double due = pace->start + (double)pace->bytes / (double)pace->rate;
    double early;
    while ((early = due - fl_seconds_wall()) > 0 && !atomic_load(&pace->stopped)) {
        if (early > SLEEP_MOST)
            early = SLEEP_MOST;
        const struct timespec time = {.tv_nsec = (long)(early * 1e9)};
        nanosleep(&time, NULL);
    }
}

void fl_pace_stop(struct fl_pace *pace)
{
    atomic_store(&pace->stopped, true);
}
