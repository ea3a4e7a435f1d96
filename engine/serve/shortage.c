// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/shortage.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/host/cgroup.h"
#include "engine/host/huge_pool.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

enum { CHARGED_AT_ONCE = 256 << 10, REASON = 512 };

// The first, second, fourth, eighth ...: a VM whose pool comes and goes must not flood the log.
static bool is_told(uint64_t times)
{
    return (times & (times - 1)) == 0;
}

void fl_shortage_begin(struct fl_vm *vm)
{
    struct fl_shortage *shortage = &vm->shortage;
    char reason[REASON];
    bool huge = vm->page_shift != FL_PAGE_SHIFT;
    fl_counter_add(&shortage->refused, 1);
    fl_counter_add(huge ? &vm->owner->stats->short_huge : &vm->owner->stats->short_memory, 1);
    if (shortage->since_ns)
        return;
    atomic_store(&shortage->since_ns, fl_now());
    if (is_told(++shortage->times))
        fl_log(FL_LOG_WARNING,
               "event=shortage vm=%" PRIu64 " image=%s times=%" PRIu64 " reason=\"%s\"", vm->id,
               fl_vm_image_name(vm), shortage->times,
               fl_shortage_reason(vm, reason, sizeof(reason)));
}

void fl_shortage_end(struct fl_vm *vm)
{
    struct fl_shortage *shortage = &vm->shortage;
    uint64_t since = shortage->since_ns;
    if (!since)
        return;
    atomic_store(&shortage->since_ns, 0);
    if (is_told(shortage->times))
        fl_log(FL_LOG_INFO,
               "event=shortage_ended vm=%" PRIu64 " image=%s times=%" PRIu64 " ms=%" PRIu64, vm->id,
               fl_vm_image_name(vm), shortage->times, (fl_now() - since) / FL_NS_PER_MS);
}

bool fl_shortage_of_huge_pages(void)
{
    struct fl_cgroup_limit limit;
    struct fl_huge_pool pool = fl_huge_pool_read();
    return fl_huge_pool_available(&pool) == 0 ||
           fl_cgroup_full(0, FL_CGROUP_HUGE_PAGES, FL_HUGE_BYTES, &limit) == 1;
}

// Pages of 2 MiB are charged to the process that fills them: to us.
static void say_huge(char *buf, size_t size)
{
    struct fl_cgroup_limit limit;
    struct fl_huge_pool pool = fl_huge_pool_read();
    if (fl_cgroup_full(0, FL_CGROUP_HUGE_PAGES, FL_HUGE_BYTES, &limit) == 1)
        snprintf(buf, size,
                 "the engine's hugetlb cgroup is full: limit %" PRIu64 " MiB (%s); %" PRIu64
                 " of %" PRIu64 " pages of 2 MiB in the pool are free",
                 limit.limit >> 20, limit.path, pool.free, pool.total);
    else if (fl_huge_pool_available(&pool) > 0)
        snprintf(buf, size,
                 "no 2 MiB page can be allocated, though %" PRIu64 " of %" PRIu64
                 " in the pool are free: a limit that the engine cannot see, or a NUMA policy",
                 pool.free, pool.total);
    else
        snprintf(buf, size,
                 "no free 2 MiB page: %" PRIu64 " in the pool, %" PRIu64 " free, %" PRIu64
                 " of these reserved",
                 pool.total, pool.free, pool.reserved);
}

// Pages of 4 KiB are charged to the VM, their page tables to us.
static void say_small(const struct fl_vm *vm, char *buf, size_t size)
{
    struct fl_cgroup_limit limit;
    pid_t pid = (pid_t)vm->state->pid;
    if (pid > 0 && fl_cgroup_full(pid, FL_CGROUP_MEMORY, CHARGED_AT_ONCE, &limit) == 1)
        snprintf(buf, size,
                 "no memory for a page: the VM's memory cgroup is full: limit %" PRIu64 " MiB (%s)",
                 limit.limit >> 20, limit.path);
    else if (fl_cgroup_full(0, FL_CGROUP_MEMORY, CHARGED_AT_ONCE, &limit) == 1)
        snprintf(buf, size,
                 "no memory for a page: the engine's memory cgroup is full: limit %" PRIu64
                 " MiB (%s)",
                 limit.limit >> 20, limit.path);
    else
        snprintf(buf, size, "no memory for a page: the host has none");
}

const char *fl_shortage_reason(const struct fl_vm *vm, char *buf, size_t size)
{
    if (vm->page_shift != FL_PAGE_SHIFT)
        say_huge(buf, size);
    else
        say_small(vm, buf, size);
    return buf;
}
