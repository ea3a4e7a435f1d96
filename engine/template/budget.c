// SPDX-License-Identifier: Apache-2.0
#include "engine/template/budget.h"

#include <unistd.h>

#include "snapshot/read.h"

static uint64_t half_of_the_host(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2;
}

void fl_template_budget_init(struct fl_template_budget *budget, uint64_t limit_bytes)
{
    uint64_t bytes = limit_bytes ? limit_bytes : half_of_the_host();
    budget->limit = bytes >> FL_PAGE_SHIFT;
    atomic_store(&budget->used, 0);
}

bool fl_template_budget_reserve(struct fl_template_budget *budget, uint64_t pages)
{
    uint64_t before = atomic_fetch_add_explicit(&budget->used, pages, memory_order_relaxed);
    if (before + pages <= budget->limit)
        return true;
    fl_template_budget_release(budget, pages);
    return false;
}

void fl_template_budget_take(struct fl_template_budget *budget, uint64_t pages)
{
    atomic_fetch_add_explicit(&budget->used, pages, memory_order_relaxed);
}

void fl_template_budget_release(struct fl_template_budget *budget, uint64_t pages)
{
    atomic_fetch_sub_explicit(&budget->used, pages, memory_order_relaxed);
}
