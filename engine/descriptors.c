// SPDX-License-Identifier: Apache-2.0
#include "engine/descriptors.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { MOST = 1 << 18, RESERVE_MOST = 512, RESERVE_LEAST = 16, RESERVE_SHARE = 4 };

static void raise_limit(int resource, rlim_t most)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0)
        return;
    rlim_t wanted = limit.rlim_max < most ? limit.rlim_max : most;
    limit.rlim_cur = limit.rlim_cur > wanted ? limit.rlim_cur : wanted;
    setrlimit(resource, &limit);
}

void fl_descriptors_raise(void)
{
    raise_limit(RLIMIT_NOFILE, MOST);
    raise_limit(RLIMIT_FSIZE, RLIM_INFINITY);
}

unsigned fl_descriptors_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > MOST)
        return MOST;
    return (unsigned)limit.rlim_cur;
}

static bool is_open(unsigned fd)
{
    return fcntl((int)fd, F_GETFD) >= 0;
}

unsigned fl_descriptors_used(void)
{
    struct stat status;
    if (stat("/proc/self/fd", &status) == 0 && status.st_size > 0)
        return (unsigned)status.st_size;
    unsigned used = 0;
    for (unsigned fd = 0; fd < fl_descriptors_limit(); fd++)
        used += is_open(fd);
    return used;
}

unsigned fl_descriptors_reserve(void)
{
    unsigned share = fl_descriptors_limit() / RESERVE_SHARE;
    if (share < RESERVE_LEAST)
        return RESERVE_LEAST;
    return share < RESERVE_MOST ? share : RESERVE_MOST;
}

// From the end, as the table fills from below. To open and close some would take them from threads
// that need them just now.
bool fl_descriptors_free(unsigned count)
{
    unsigned found = 0;
    for (unsigned fd = fl_descriptors_limit(); fd > 0 && found < count;)
        found += !is_open(--fd);
    return found == count;
}
