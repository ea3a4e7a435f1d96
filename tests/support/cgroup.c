// SPDX-License-Identifier: Apache-2.0
#include "tests/support/cgroup.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char cgroup[128];
static int janitor[2] = {-1, -1}; // a pipe: its end tells a process to remove the cgroup

void cgroup_remove(void)
{
    for (unsigned i = 0; cgroup[0] && rmdir(cgroup) != 0 && i < 500; i++)
        poll(NULL, 0, 10);
}

static void start_janitor(void)
{
    char byte;
    cr_assert_eq(pipe2(janitor, O_CLOEXEC), 0);
    if (fork() != 0)
        return;
    setsid();
    close(janitor[1]);
    while (read(janitor[0], &byte, 1) > 0) {
    }
    cgroup_remove();
    _exit(0);
}

static bool put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", cgroup, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return done;
}

static uint64_t number_in(const char *name, const char *other_name)
{
    char path[256];
    unsigned long long number = 0;
    snprintf(path, sizeof(path), "%s/%s", cgroup, name);
    FILE *file = fopen(path, "re");
    if (!file) {
        snprintf(path, sizeof(path), "%s/%s", cgroup, other_name);
        file = fopen(path, "re");
    }
    cr_assert(file && fscanf(file, "%llu", &number) == 1, "cannot read %s", path);
    fclose(file);
    return number;
}

void need(bool has, const char *what)
{
    if (has)
        return;
    fprintf(stderr, "SKIPPED: this test needs %s\n", what);
    cr_assert(getenv("CI") == NULL, "CI=true, and there is no %s", what);
    cr_skip_test("no %s", what);
}

void cgroup_make(uint64_t bytes)
{
    static const char *const parents[] = {"/sys/fs/cgroup/memory", "/sys/fs/cgroup"};
    char limit[32];
    snprintf(limit, sizeof(limit), "%llu", (unsigned long long)bytes);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(cgroup, sizeof(cgroup), "%s/fl-test-%d", parents[i], (int)getpid());
        if (mkdir(cgroup, 0700) != 0)
            continue;
        if (put("memory.limit_in_bytes", limit) || put("memory.max", limit)) {
            start_janitor();
            return;
        }
        rmdir(cgroup);
    }
    cgroup[0] = '\0';
    need(false, "a memory cgroup");
}

bool cgroup_enter(void)
{
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    return put("cgroup.procs", pid);
}

uint64_t cgroup_used(void)
{
    return number_in("memory.current", "memory.usage_in_bytes");
}

uint64_t cgroup_peak(void)
{
    return number_in("memory.peak", "memory.max_usage_in_bytes");
}
