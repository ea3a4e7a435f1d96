// SPDX-License-Identifier: Apache-2.0
#include "engine/host/process_usage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/host/procfs.h"

enum { PATH_ROOM = 64, STAT_ROOM = 1024 };

static uint64_t ticks_ns(uint64_t ticks)
{
    uint64_t a_second = (uint64_t)sysconf(_SC_CLK_TCK);
    return ticks / a_second * FL_NS_PER_S + ticks % a_second * FL_NS_PER_S / a_second;
}

// Seconds of the epoch. It does not change, and to read it takes long on a host of many interrupts.
static uint64_t boot_time(void)
{
    static _Atomic uint64_t known; // written by threads that read the same there
    char line[128];
    uint64_t found = atomic_load(&known);
    FILE *file = found ? NULL : fopen("/proc/stat", "re");
    while (file && !found && fgets(line, sizeof(line), file))
        (void)sscanf(line, "btime %" SCNu64, &found); // NOLINT(cert-err34-c)
    if (file)
        fclose(file);
    atomic_store(&known, found);
    return found;
}

// Behind the name, in which there may be anything.
static int read_stat(const char *path, struct fl_process_usage *usage)
{
    char text[STAT_ROOM];
    uint64_t user = 0;
    uint64_t system = 0;
    uint64_t started = 0;
    uint64_t pages = 0;
    ssize_t got = fl_proc_read(path, text, sizeof(text));
    const char *end = got > 0 ? strrchr(text, ')') : NULL;
    if (!end)
        return got < 0 ? (int)got : -ESRCH;
    // Fields 3, 14, 15, 22, 23 and 24 of proc(5).
    if (sscanf(end, // NOLINT(cert-err34-c)
               ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
               " %*d %*d %*d %*d %*d %*d %" SCNu64 " %" SCNu64 " %" SCNu64,
               &usage->state, &user, &system, &started, &usage->virtual, &pages) != 6)
        return -EPROTO;
    usage->cpu_ns = ticks_ns(user) + ticks_ns(system);
    usage->resident = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    usage->started_ns = boot_time() * FL_NS_PER_S + ticks_ns(started);
    return 0;
}

static int count_one(void *arg, int number)
{
    (void)number;
    ++*(uint64_t *)arg;
    return 0;
}

// The kernel says how many there are since 6.2.
static uint64_t count_descriptors(const char *path)
{
    struct stat status;
    uint64_t count = 0;
    if (stat(path, &status) != 0)
        return UINT64_MAX;
    if (status.st_size > 0)
        return (uint64_t)status.st_size;
    return fl_proc_each(path, count_one, &count) < 0 ? UINT64_MAX : count;
}

int fl_process_usage(pid_t pid, struct fl_process_usage *ret_usage)
{
    char path[PATH_ROOM];
    struct rlimit limit;
    struct fl_process_usage usage = {.limit = UINT64_MAX};
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int error = read_stat(path, &usage);
    if (error)
        return error;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    usage.descriptors = count_descriptors(path);
    if (prlimit(pid, RLIMIT_NOFILE, NULL, &limit) == 0)
        usage.limit = limit.rlim_cur;
    *ret_usage = usage;
    return 0;
}
