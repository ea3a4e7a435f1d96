// SPDX-License-Identifier: Apache-2.0
#include "engine/base/crash_point.h"

#ifdef FAULTLINE_POINTS
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"

enum { DELAY_US = 1000, DELAY_US_MOST = 900000, POINTS_ONE_IN = 4, VISITS_ONE_IN = 4 };
#define DELAY_TURN (5 * FL_NS_PER_MS) // then other points have it

static struct {
    const char *kill_at; // NULL: none
    size_t kill_name;    // bytes of it
    long kill_visit;
    uint64_t seed;
    uint64_t delay_ns; // 0: none
} options;

static void read_options(void)
{
    char *end = NULL;
    options.kill_at = getenv("FAULTLINE_KILL_AT");
    if (options.kill_at) {
        options.kill_name = strcspn(options.kill_at, ":");
        const char *visit = options.kill_at + options.kill_name;
        options.kill_visit = *visit ? strtol(visit + 1, NULL, 10) : 1;
    }
    const char *delays = getenv("FAULTLINE_DELAYS");
    if (delays && *delays) {
        options.seed = strtoull(delays, &end, 10);
        uint64_t us = *end == ':' ? strtoull(end + 1, NULL, 10) : DELAY_US;
        options.delay_ns = (us < DELAY_US_MOST ? us : DELAY_US_MOST) * FL_NS_PER_US;
    }
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}

static uint64_t number_of(const char *name)
{
    uint64_t number = options.seed;
    for (; *name; name++)
        number = mix(number + (uint8_t)*name);
    return number;
}

static uint64_t roll(void)
{
    static atomic_ullong threads;
    static _Thread_local uint64_t dice;
    if (!dice)
        dice = mix(options.seed + atomic_fetch_add(&threads, 1) + 1) | 1;
    dice += 0x9e3779b97f4a7c15ULL;
    return mix(dice);
}

static void delay(const char *name)
{
    uint64_t turn = fl_now() / DELAY_TURN;
    uint64_t dice = roll();
    if (mix(number_of(name) + turn) % POINTS_ONE_IN != 0 || dice % VISITS_ONE_IN != 0)
        return;
    struct timespec time = {.tv_nsec = (long)(dice / VISITS_ONE_IN % options.delay_ns)};
    nanosleep(&time, NULL);
}

static void kill_at(const char *name)
{
    static atomic_long times;
    if (strlen(name) != options.kill_name || strncmp(options.kill_at, name, strlen(name)) != 0 ||
        atomic_fetch_add(&times, 1) + 1 < options.kill_visit)
        return;
    const char *token = getenv("FAULTLINE_KILL_TOKEN");
    if (!token || unlink(token) == 0)
        raise(SIGKILL);
}

void fl_crash_point(const char *name)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_options);
    if (options.delay_ns > 0)
        delay(name);
    if (options.kill_at)
        kill_at(name);
}

bool fl_held(const char *name)
{
    const char *at = getenv("FAULTLINE_HOLD_AT");
    const char *token = getenv("FAULTLINE_HOLD_TOKEN");
    return at && token && strcmp(at, name) == 0 && access(token, F_OK) == 0;
}
#else
// An empty file is no C.
typedef int fl_crash_point_is_not_here;
#endif
