// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/fault_around.h"

#include "engine/base/bitmap.h"
#include "engine/cache/frame_cache.h"
#include "engine/image/plan.h"
#include "engine/serve/vm_image.h"
#include "engine/serve/zero_around.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

enum { PLANNED_MOST = 64 }; // no more than this of a large frame, or of zeros, for one fault

// The frame of the page at which a sweep goes on, so that it is there when it is asked for.
static void sweep_read_next(struct fl_shard *shard, struct fl_vm *vm, uint64_t page)
{
    const struct fl_layout *layout = &vm->state->layout;
    const struct fl_region *region = fl_layout_region(layout, page - 1);
    if (page >= region->first_page + (region->bytes >> layout->page_shift))
        return;
    struct fl_run run = fl_image_run(vm->image, fl_layout_image_page(layout, page), 1);
    if (!run.zero)
        fl_cache_ahead(shard->cache, vm->image, &run.id, 1);
}

// Looks up what the image has, at most once. A run that was looked up for more pages than are asked
// for here, and is longer, is cut.
static uint32_t run_look_up(const struct fl_vm *vm, uint64_t page, uint32_t pages,
                            struct fl_run *run)
{
    if (run->pages == 0)
        *run = fl_vm_run(vm, page, pages);
    else if (run->pages > pages)
        run->pages = pages;
    return run->pages;
}

// Of a VM in replay: what the trace has behind the page will be wanted as well, and need not come
// page by page. 0: it has nothing more there than is asked for.
static uint32_t planned_pages(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                              uint32_t asked, struct fl_run *run)
{
    uint64_t first = fl_layout_image_page(&vm->state->layout, page);
    uint32_t pages = fl_plan_row(vm->replay.plan, first, PLANNED_MOST);
    pages = pages > asked ? run_look_up(vm, page, pages, run) : 0;
    if (pages <= asked)
        return 0;
    fl_counter_add(&shard->stats->ahead_units, pages - asked);
    return pages;
}

// The sweep's window, with the run that was looked up for it.
static uint32_t sweep_pages(struct fl_shard *shard, struct fl_vm *vm, uint64_t page, uint32_t asked,
                            struct fl_run *run)
{
    const struct fl_prefetch_budget *budget = &shard->prefetch;
    bool follows = page > 0 && fl_bit_test(vm->installed, page - 1);
    uint32_t window = fl_prefetch_window(&vm->prefetch, budget, page, asked, follows);
    uint32_t pages = window > 1 ? run_look_up(vm, page, window, run) : 1;
    fl_prefetch_installing(&vm->prefetch, budget, page, asked, pages);
    if (pages > asked)
        fl_counter_add(&shard->stats->ahead_units, pages - asked);
    if (window > asked && pages < window)
        sweep_read_next(shard, vm, page + pages);
    return pages;
}

// A sweep goes on behind zeros: what comes with them is not doubtful to it.
static void sweep_over_zeros(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                             uint32_t pages)
{
    const struct fl_prefetch_budget *budget = &shard->prefetch;
    bool follows = page > 0 && fl_bit_test(vm->installed, page - 1);
    uint32_t window = fl_prefetch_window(&vm->prefetch, budget, page, pages, follows);
    fl_prefetch_installing(&vm->prefetch, budget, page, pages, pages);
    if (window > pages)
        sweep_read_next(shard, vm, page + pages);
}

static bool zeros_around(struct fl_shard *shard, struct fl_vm *vm, uint64_t page, uint32_t asked,
                         struct fl_around *around)
{
    struct fl_zero_around zeros = fl_zero_around(shard, vm, page, asked);
    if (zeros.pages == 0)
        return false;
    around->zeros = true;
    around->before = zeros.before;
    around->pages = zeros.pages;
    around->run = (struct fl_run){.pages = zeros.pages, .zero = true};
    sweep_over_zeros(shard, vm, page, zeros.pages);
    return true;
}

struct fl_around fl_fault_around(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                                 uint32_t asked, bool write)
{
    struct fl_around around = {.pages = 1};
    if (vm->page_shift != FL_PAGE_SHIFT || fl_vm_is_recorded(vm))
        return around;
    if (write && shard->prefetch.window >= 2 && zeros_around(shard, vm, page, asked, &around))
        return around;
    uint32_t planned = vm->replay.plan ? planned_pages(shard, vm, page, asked, &around.run) : 0;
    if (planned > 0)
        around.pages = planned;
    else if (shard->prefetch.window < 2)
        around.pages = asked;
    else
        around.pages = sweep_pages(shard, vm, page, asked, &around.run);
    return around;
}
