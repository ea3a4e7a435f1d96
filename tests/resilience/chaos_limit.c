// SPDX-License-Identifier: Apache-2.0
#include "tests/resilience/chaos_limit.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

static const char v1_root[] = "/sys/fs/cgroup/memory";
static const char v2_root[] = "/sys/fs/cgroup";

static bool is_v1(void)
{
    char path[64];
    snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", v1_root);
    return access(path, F_OK) == 0;
}

void chaos_limit_name(struct chaos_limit *limit, const char *directory)
{
    *limit = (struct chaos_limit){.procs = ""};
    snprintf(limit->group, sizeof(limit->group), "%s/faultline-chaos-%d",
             is_v1() ? v1_root : v2_root, (int)getpid());
    snprintf(limit->swap, sizeof(limit->swap), "%s/swap", directory);
}

static bool put(const char *group, const char *file, const char *value)
{
    char path[CHAOS_LIMIT_PATH + 64];
    snprintf(path, sizeof(path), "%s/%s", group, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool good = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);
    if (!good)
        fprintf(stderr, "chaos: %s: %s\n", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return good;
}

static bool make_group(const struct chaos_limit *limit, uint64_t bytes)
{
    char text[32];
    snprintf(text, sizeof(text), "%" PRIu64, bytes);
    if (!is_v1() && !put(v2_root, "cgroup.subtree_control", "+memory"))
        return false;
    if (mkdir(limit->group, 0755) < 0 && errno != EEXIST) {
        fprintf(stderr, "chaos: %s: %s\n", limit->group, strerror(errno));
        return false;
    }
    return put(limit->group, is_v1() ? "memory.limit_in_bytes" : "memory.max", text);
}

static bool make_swap(const char *path, uint64_t bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int error = fd < 0 ? errno : posix_fallocate(fd, 0, (off_t)bytes);
    if (fd >= 0)
        close(fd);
    if (error) {
        fprintf(stderr, "chaos: %s: %s\n", path, strerror(error));
        return false;
    }
    pid_t pid = fork();
    if (pid == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL)
            _exit(126);
        execlp("mkswap", "mkswap", path, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    bool good = status == 0 && swapon(path, 0) == 0;
    if (!good)
        fprintf(stderr, "chaos: no swap in %s: %s\n", path,
                status == 0 ? strerror(errno) : "mkswap failed");
    return good;
}

bool chaos_limit_make(struct chaos_limit *limit, uint64_t bytes, uint64_t swap_bytes)
{
    if (!make_group(limit, bytes) || !make_swap(limit->swap, swap_bytes))
        return false;
    snprintf(limit->procs, sizeof(limit->procs), "%s/cgroup.procs", limit->group);
    return true;
}

// Returns the number after the word `key` in a file of the group; with no key, its first number.
static uint64_t get(const struct chaos_limit *limit, const char *file, const char *key)
{
    char path[CHAOS_LIMIT_PATH + 64];
    char line[256];
    uint64_t value = 0;
    size_t skip = key ? strlen(key) : 0;
    snprintf(path, sizeof(path), "%s/%s", limit->group, file);
    FILE *in = fopen(path, "re");
    while (in && fgets(line, sizeof(line), in)) {
        if (key && (strncmp(line, key, skip) != 0 || line[skip] != ' '))
            continue;
        value = strtoull(line + skip, NULL, 10);
        break;
    }
    if (in)
        fclose(in);
    return value;
}

uint64_t chaos_limit_met(const struct chaos_limit *limit)
{
    return is_v1() ? get(limit, "memory.failcnt", NULL) : get(limit, "memory.events", "max");
}

uint64_t chaos_limit_swapped(const struct chaos_limit *limit)
{
    uint64_t bytes =
        is_v1() ? get(limit, "memory.stat", "swap") : get(limit, "memory.swap.current", NULL);
    return bytes / 4096;
}

void chaos_limit_remove(const struct chaos_limit *limit)
{
    if (access(limit->swap, F_OK) == 0) {
        if (swapoff(limit->swap) < 0 && errno != EINVAL)
            fprintf(stderr, "chaos: swapoff %s: %s\n", limit->swap, strerror(errno));
        unlink(limit->swap);
    }
    if (rmdir(limit->group) < 0 && errno != ENOENT)
        fprintf(stderr, "chaos: rmdir %s: %s\n", limit->group, strerror(errno));
}
