// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/doctor_pool.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/host/cgroup.h"
#include "engine/host/huge_pool.h"
#include "engine/host/procfs.h"
#include "engine/host/region.h"

static int add_pages(void *arg, const struct fl_proc_range *range)
{
    if (range->page_bytes == FL_HUGE_BYTES)
        *(uint64_t *)arg += range->bytes / FL_HUGE_BYTES;
    return 0;
}

static uint64_t huge_pages_of(pid_t vm)
{
    uint64_t pages = 0;
    fl_proc_each_registered(vm, add_pages, &pages);
    return pages;
}

enum doctor_lack doctor_lack(pid_t vm, pid_t handler)
{
    struct fl_cgroup_limit limit;
    if (vm <= 0 || huge_pages_of(vm) == 0)
        return DOCTOR_LACKS_NOTHING;
    if (handler > 0 && fl_cgroup_full(handler, FL_CGROUP_HUGE_PAGES, FL_HUGE_BYTES, &limit) == 1)
        return DOCTOR_LACKS_ROOM;
    struct fl_huge_pool pool = fl_huge_pool_read();
    return fl_huge_pool_available(&pool) == 0 ? DOCTOR_LACKS_PAGES : DOCTOR_LACKS_NOTHING;
}

const char *doctor_explain_lack(enum doctor_lack lack)
{
    return lack == DOCTOR_LACKS_ROOM
               ? "it waits for a page of 2 MiB, and the hugetlb cgroup of its handler is full"
               : "it waits for a page of 2 MiB, and none is free in the pool";
}

static void mend_cgroup(pid_t handler, char *buf, size_t size)
{
    struct fl_cgroup_limit limit;
    char path[sizeof(limit.path) + 32];
    if (fl_cgroup_full(handler, FL_CGROUP_HUGE_PAGES, FL_HUGE_BYTES, &limit) != 1)
        return;
    snprintf(path, sizeof(path), "%s/hugetlb.2MB.max", limit.path);
    if (access(path, F_OK) == 0)
        snprintf(buf, size, "echo max >'%s'", path);
    else
        snprintf(buf, size, "echo -1 >'%s/hugetlb.2MB.limit_in_bytes'", limit.path);
}

void doctor_mend_lack(enum doctor_lack lack, pid_t vm, pid_t handler, char *buf, size_t size)
{
    struct fl_huge_pool pool = fl_huge_pool_read();
    buf[0] = '\0';
    if (lack == DOCTOR_LACKS_ROOM)
        mend_cgroup(handler, buf, size);
    else if (lack == DOCTOR_LACKS_PAGES)
        snprintf(buf, size, "echo %" PRIu64 " >/proc/sys/vm/nr_hugepages",
                 pool.total + huge_pages_of(vm));
}

void doctor_show_pool(char *buf, size_t size)
{
    struct fl_huge_pool pool = fl_huge_pool_read();
    snprintf(buf, size,
             "pages of 2 MiB: %" PRIu64 " in the pool, %" PRIu64 " free, %" PRIu64
             " of these reserved",
             pool.total, pool.free, pool.reserved);
}
