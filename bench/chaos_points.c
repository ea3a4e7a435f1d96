// SPDX-License-Identifier: Apache-2.0
//
// Engines that kill themselves at named points of the code (builds with FAULTLINE_POINTS only). One
// at a time, by a token: were all of them to, one that dies while it takes over had no successor.
#include <stdio.h>
#include <string.h>

#include "bench/chaos_act.h"
#include "bench/clock.h"

enum { POINT_S = 15, ARM_MS = 300 };

uint32_t chaos_split_points(const char *list, struct chaos_point points[CHAOS_POINTS])
{
    uint32_t count = 0;
    while (*list != '\0' && count < CHAOS_POINTS) {
        size_t length = strcspn(list, ",");
        snprintf(points[count++].name, CHAOS_POINT_NAME, "%.*s", (int)length, list);
        list += length + (list[length] == ',');
    }
    return count;
}

static void act(struct chaos_run *run)
{
    switch (chaos_dice(run, 8)) {
    case 0:
        chaos_kill_client(run);
        break;
    case 1:
    case 2:
        chaos_upgrade(run, NULL);
        break;
    case 3:
        chaos_restart(run);
        break;
    case 4:
        chaos_kill_engine(run);
        break;
    default: // what comes by itself
        break;
    }
}

void chaos_act_at(struct chaos_run *run, struct chaos_point *point)
{
    unsigned before = run->service.died_armed;
    uint64_t end = bench_now_ns() + (uint64_t)POINT_S * 1000000000;
    uint64_t armed_ns = 0;
    while (chaos_goes_on(run) && point->hits < run->options->hits && bench_now_ns() < end) {
        if (!run->service.armed && bench_now_ns() - armed_ns > (uint64_t)ARM_MS * 1000000) {
            armed_ns = bench_now_ns();
            run->failed |= !chaos_service_arm(&run->service);
        }
        chaos_go_on(run, chaos_dice(run, (uint64_t)run->options->every_ms * 2000 + 1));
        point->hits = run->service.died_armed - before;
        if (chaos_goes_on(run) && point->hits < run->options->hits)
            act(run);
    }
}
