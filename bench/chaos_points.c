// SPDX-License-Identifier: Apache-2.0
//
// Engines that kill themselves at named points of the code (builds with test points only). One
// engine at a time is armed, by a token that `armed_engine` takes: were all of them, one that dies
// while it takes over would never have a successor.
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/chaos_act.h"
#include "bench/clock.h"

enum { POINT_S = 60, ARM_MS = 1000, COUNT_MOST = 40 };

static uint32_t split(const char *list, struct chaos_point points[CHAOS_POINTS])
{
    uint32_t count = 0;
    while (*list != '\0' && count < CHAOS_POINTS) {
        size_t length = strcspn(list, ",");
        snprintf(points[count++].name, CHAOS_POINT_NAME, "%.*s", (int)length, list);
        list += length + (list[length] == ',');
    }
    return count;
}

// From now on engines are started through `armed_engine`, which lies beside this program.
static bool go_over(struct chaos_run *run, char armed[PATH_MAX], char token[CHAOS_PATH])
{
    ssize_t length = readlink("/proc/self/exe", armed, PATH_MAX - 32);
    if (length < 0)
        return false;
    armed[length] = '\0';
    strcpy(strrchr(armed, '/'), "/armed_engine");
    chaos_upgrade(run, armed);
    if (!chaos_await(run, chaos_upgraded, "the upgrade to armed_engine"))
        return false;
    run->done.upgrades = 0; // it was not part of the test
    run->service.token = token;
    return chaos_goes_on(run);
}

// Half of the time it is the first passage at which it dies: many points are passed once.
static void arm(struct chaos_run *run, const char *name)
{
    char text[CHAOS_POINT_NAME + 16];
    uint64_t count = 1 + chaos_dice(run, 2) * chaos_dice(run, COUNT_MOST);
    snprintf(text, sizeof(text), "%s:%llu", name, (unsigned long long)count);
    if (!chaos_service_arm(&run->service, text))
        run->failed = true;
}

static void act(struct chaos_run *run, const char *armed)
{
    switch (chaos_dice(run, 8)) {
    case 0:
        chaos_kill_client(run);
        break;
    case 1:
    case 2:
        chaos_upgrade(run, armed);
        break;
    case 3:
        chaos_restart(run);
        break;
    default:
        chaos_kill_engine(run);
        break;
    }
}

static void act_at(struct chaos_run *run, struct chaos_point *point, const char *armed)
{
    unsigned before = run->service.died_armed;
    uint64_t end = bench_now_ns() + (uint64_t)POINT_S * 1000000000;
    uint64_t armed_ns = 0;
    while (chaos_goes_on(run) && point->hits < run->options->hits && bench_now_ns() < end) {
        if (!chaos_service_is_armed(&run->service) &&
            bench_now_ns() - armed_ns > (uint64_t)ARM_MS * 1000000) {
            armed_ns = bench_now_ns();
            arm(run, point->name);
        }
        chaos_go_on(run, chaos_dice(run, (uint64_t)run->options->every_ms * 2000 + 1));
        point->hits = run->service.died_armed - before;
        if (chaos_goes_on(run) && point->hits < run->options->hits)
            act(run, armed);
    }
    if (point->hits > 0 || !chaos_goes_on(run))
        return;
    fprintf(stderr, "chaos: no engine came to the point %s\n", point->name);
    run->failed = true;
}

void chaos_act_at_points(struct chaos_run *run)
{
    static char armed[PATH_MAX];
    static char token[CHAOS_PATH];
    snprintf(token, sizeof(token), "%s", getenv("FAULTLINE_CHAOS_TOKEN"));
    run->done.points = split(run->options->points, run->done.point);
    if (!go_over(run, armed, token))
        run->failed = true;
    for (uint32_t i = 0; i < run->done.points && chaos_goes_on(run); i++) {
        act_at(run, &run->done.point[i], armed);
        fprintf(stderr, "chaos: died %u times at %s\n", run->done.point[i].hits,
                run->done.point[i].name);
    }
}
