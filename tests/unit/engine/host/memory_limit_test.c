// SPDX-License-Identifier: Apache-2.0
//
// Which memory limit a process is under, by the files of cgroups of both versions.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/host/memory_limit.h"
#include "tests/support/temp.h"

static struct temp temp;

static void make(void)
{
    temp_make(&temp);
}

static void clear(void)
{
    temp_remove(&temp);
}

TestSuite(memory_limit, .init = make, .fini = clear);

static void put(const char *cgroup, const char *name, const char *text)
{
    char path[2 * TEST_PATH];
    snprintf(path, sizeof(path), "%s/%s", temp.path, cgroup);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/%s/%s", temp.path, cgroup, name);
    FILE *file = fopen(path, "we");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

static struct fl_cgroup_mounts unified(void)
{
    struct fl_cgroup_mounts mounts = {0};
    cr_assert_lt(snprintf(mounts.unified, sizeof(mounts.unified), "%.200s", temp.path), 200);
    return mounts;
}

static void put_unified(const char *cgroup, const char *max, const char *current, const char *hits)
{
    char events[96];
    put(cgroup, "memory.max", max);
    put(cgroup, "memory.current", current);
    snprintf(events, sizeof(events), "low 1\nhigh 2\nmax %s\noom 3\n", hits);
    put(cgroup, "memory.events", events);
}

Test(memory_limit, of_version_2)
{
    struct fl_cgroup_mounts mounts = unified();
    struct fl_memory_limit limit;
    char text[256];
    put_unified("vm", "104857600\n", "104000000\n", "17");
    cr_assert_eq(fl_memory_limit_of(&mounts, "1:cpu:/other\n0::/vm\n", &limit), 0);
    cr_expect_eq(limit.limit, 104857600);
    cr_expect_eq(limit.used, 104000000);
    cr_expect_eq(limit.hits, 17);
    cr_expect_str_eq(limit.cgroup, "/vm");
    fl_memory_limit_text(&limit, text, sizeof(text));
    cr_expect_str_eq(text, "memory.max of /vm is 104857600 bytes, 104000000 are used");
}

// The one above leaves less; hits of both count.
Test(memory_limit, of_the_one_above)
{
    struct fl_cgroup_mounts mounts = unified();
    struct fl_memory_limit limit;
    put_unified("vms", "1000000\n", "999000\n", "5");
    put_unified("vms/7", "500000\n", "100000\n", "2");
    cr_assert_eq(fl_memory_limit_of(&mounts, "0::/vms/7\n", &limit), 0);
    cr_expect_eq(limit.limit, 1000000);
    cr_expect_eq(limit.hits, 7);
    cr_expect_str_eq(limit.cgroup, "/vms");
}

Test(memory_limit, none)
{
    struct fl_cgroup_mounts mounts = unified();
    struct fl_memory_limit limit;
    put_unified("vm", "max\n", "104000000\n", "17");
    cr_assert_eq(fl_memory_limit_of(&mounts, "0::/vm\n", &limit), 0);
    cr_expect_eq(limit.limit, 0);
    cr_assert_eq(fl_memory_limit_of(&mounts, "0::/\n", &limit), 0);
    cr_expect_eq(limit.limit, 0);
    cr_assert_eq(fl_memory_limit_of(&mounts, "", &limit), -ENOENT);
    cr_assert_eq(fl_memory_limit_of(&mounts, "nonsense\n", &limit), -ENOENT);
}

// Its word for "none" is a number.
Test(memory_limit, of_version_1)
{
    struct fl_cgroup_mounts mounts = {0};
    struct fl_memory_limit limit;
    cr_assert_lt(snprintf(mounts.memory, sizeof(mounts.memory), "%.200s", temp.path), 200);
    put("vm", "memory.limit_in_bytes", "67108864\n");
    put("vm", "memory.usage_in_bytes", "67100000\n");
    put("vm", "memory.failcnt", "1234\n");
    const char *cgroups = "4:hugetlb,memory:/vm\n3:cpu:/other\n0::/\n";
    cr_assert_eq(fl_memory_limit_of(&mounts, cgroups, &limit), 0);
    cr_expect_eq(limit.limit, 67108864);
    cr_expect_eq(limit.used, 67100000);
    cr_expect_eq(limit.hits, 1234);
    put("vm", "memory.limit_in_bytes", "9223372036854771712\n");
    cr_assert_eq(fl_memory_limit_of(&mounts, cgroups, &limit), 0);
    cr_expect_eq(limit.limit, 0);
}
