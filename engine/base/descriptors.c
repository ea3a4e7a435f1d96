// SPDX-License-Identifier: Apache-2.0
#include "engine/base/descriptors.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST = 1 << 18, RESERVE_MOST = 512, RESERVE_LEAST = 16, RESERVE_SHARE = 4 };

// As much of the hard limit as is wanted; never less than there was.
static void raise_soft(struct rlimit *limit, rlim_t most)
{
    rlim_t wanted = limit->rlim_max < most ? limit->rlim_max : most;
    limit->rlim_cur = limit->rlim_cur > wanted ? limit->rlim_cur : wanted;
}

void fl_descriptors_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        raise_soft(&limit, MOST);
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0) {
        raise_soft(&limit, RLIM_INFINITY);
        setrlimit(RLIMIT_FSIZE, &limit);
    }
}

void fl_descriptors_grow(void)
{
    int top = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, (int)fl_descriptors_limit() - 1);
    if (top >= 0)
        close(top);
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

static unsigned count_entries(void)
{
    enum { OTHERS = 3 }; // ".", "..", and the one that is open for this
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (directory && readdir(directory))
        count++;
    if (directory)
        closedir(directory);
    return count > OTHERS ? count - OTHERS : 0;
}

unsigned fl_descriptors_used(void)
{
    struct stat status;
    if (stat("/proc/self/fd", &status) == 0 && status.st_size > 0)
        return (unsigned)status.st_size;
    return count_entries();
}

unsigned fl_descriptors_reserve(void)
{
    unsigned share = fl_descriptors_limit() / RESERVE_SHARE;
    if (share < RESERVE_LEAST)
        return RESERVE_LEAST;
    return share < RESERVE_MOST ? share : RESERVE_MOST;
}

// Of what the kernel counts, since 6.2: none is looked at one by one.
static bool are_few(unsigned count)
{
    struct stat status;
    unsigned limit = fl_descriptors_limit();
    return count <= limit && stat("/proc/self/fd", &status) == 0 && status.st_size > 0 &&
           (uint64_t)status.st_size <= limit - count;
}

// From the end, as the table fills from below. To open and close some would take them from threads
// that need them just now.
unsigned fl_descriptors_room(unsigned most)
{
    unsigned found = 0;
    for (unsigned fd = fl_descriptors_limit(); fd > 0 && found < most;)
        found += !is_open(--fd);
    return found;
}

bool fl_descriptors_free(unsigned count)
{
    return are_few(count) || fl_descriptors_room(count) == count;
}

// The hard limit as well, where we have the right to.
void fl_descriptors_fit(unsigned more)
{
    struct rlimit limit;
    unsigned used = fl_descriptors_used();
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || used <= limit.rlim_cur)
        return;
    limit.rlim_cur = used + more;
    limit.rlim_max = limit.rlim_max < limit.rlim_cur ? limit.rlim_cur : limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}
