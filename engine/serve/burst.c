// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/burst.h"

#include "engine/base/crash_point.h"
#include "engine/serve/install.h"
#include "engine/vm/vm.h"

void fl_burst_end(struct fl_burst *burst)
{
    if (burst->ranges > 0)
        FL_CRASH_POINT("burst_unwoken");
    for (uint32_t i = 0; i < burst->ranges && burst->vm->phase != FL_VM_GONE; i++)
        fl_install_wake(burst->vm, burst->range[i].page, burst->range[i].pages);
    burst->ranges = 0;
}

void fl_burst_add(struct fl_burst *burst, uint64_t page, uint64_t pages)
{
    if (pages == 0)
        return;
    if (burst->ranges == FL_BURST_RANGES)
        fl_burst_end(burst);
    burst->range[burst->ranges].page = page;
    burst->range[burst->ranges++].pages = pages;
}
