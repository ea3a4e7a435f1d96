// SPDX-License-Identifier: Apache-2.0
//
// Engines kill themselves at named points of the code, in builds with FAULTLINE_POINTS. The engine
// that takes the token may die, so only one does at a time: if all engines died at a point of the
// take-over, no engine would ever take over.
#include <stdio.h>
#include <string.h>

#include "bench/common/clock.h"
#include "tests/resilience/chaos_act.h"

enum { POINT_S = 20, ARM_MS = 300 };

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
    default: // nothing but the point
        break;
    }
}

// The next engine may die when an engine has served for a while since the last death. If engines
// died before they served, the keeper would start others with growing pauses, which another test
// covers.
static bool may_arm(struct chaos_run *run, unsigned *served, uint64_t *since_ns)
{
    if (run->service.served != *served)
        *since_ns = bench_now_ns();
    *served = run->service.served;
    return !run->service.armed && run->service.serving > 0 &&
           bench_now_ns() - *since_ns > (uint64_t)ARM_MS * 1000000;
}

void chaos_act_at(struct chaos_run *run, struct chaos_point *point)
{
    unsigned served = 0;
    unsigned before = run->service.died_armed;
    uint64_t end = bench_now_ns() + (uint64_t)POINT_S * 1000000000;
    uint64_t since_ns = 0;
    while (chaos_goes_on(run) && point->hits < run->options->hits && bench_now_ns() < end) {
        if (may_arm(run, &served, &since_ns))
            run->failed |= !chaos_service_arm(&run->service);
        chaos_go_on(run, chaos_dice(run, (uint64_t)run->options->every_ms * 2000 + 1));
        point->hits = run->service.died_armed - before;
        if (chaos_goes_on(run) && point->hits < run->options->hits)
            act(run);
    }
}
