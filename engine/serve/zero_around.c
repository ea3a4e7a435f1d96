// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/zero_around.h"

#include "engine/base/bitmap.h"
#include "engine/base/crash_point.h"
#include "engine/serve/install.h"
#include "engine/serve/vm_call.h"
#include "engine/vm/history.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// How many pages from this one on, and before `end`, are zeros and absent.
static uint64_t zeros_from(const struct fl_vm *vm, uint64_t page, uint64_t end)
{
    const struct fl_layout *layout = &vm->state->layout;
    uint64_t first = page;
    end = fl_bits_next_set(vm->installed, vm->installed, page, end);
    while (page < end) {
        if (fl_bit_test(vm->removed, page)) {
            page = fl_bits_next_clear(vm->removed, vm->removed, page, end);
            continue;
        }
        uint64_t kept = fl_bits_next_set(vm->removed, vm->removed, page, end);
        uint64_t in_image = fl_layout_image_page(layout, page);
        if (in_image >= fl_image_pages(vm->image))
            break;
        struct fl_run run = fl_image_run(vm->image, in_image, (uint32_t)(kept - page));
        if (!run.zero || run.pages == 0)
            break;
        page += run.pages;
    }
    return page - first;
}

// The first page of the zeros that reach up to this one, not before `first`.
static uint64_t zeros_to(const struct fl_vm *vm, uint64_t first, uint64_t page)
{
    uint64_t at = first;
    while (at < page) {
        uint64_t zeros = zeros_from(vm, at, page);
        if (at + zeros == page)
            return at;
        at += zeros + 1;
    }
    return page;
}

// What of a run that was brought earlier is of use: how much the next ones may have depends on it.
static void look(struct fl_vm *vm, uint64_t page)
{
    struct fl_zero_run *run = fl_zero_runs_doubtful(&vm->zero_runs, page);
    uint64_t written = 0;
    if (run && fl_vm_written(vm, fl_layout_address(&vm->state->layout, run->first), run->pages,
                             &written) == 0)
        fl_zero_runs_seen(&vm->zero_runs, run, (uint32_t)written);
}

static uint32_t window(struct fl_shard *shard, struct fl_vm *vm, uint64_t page)
{
    struct fl_zero_runs *runs = &vm->zero_runs;
    uint64_t proven = runs->proven;
    bool sees = vm->presence.pagemap >= 0;
    if (sees)
        look(vm, page);
    uint32_t pages = fl_zero_runs_window(runs, page, sees);
    fl_counter_add(&shard->stats->zero_used_units, runs->proven - proven);
    while (pages > 1 && runs->unproven + pages > shard->prefetch.vm)
        pages /= 2;
    return pages;
}

// In shared memory a page of zeros takes memory, and in a template it is for all. With memory
// lacking, only what is asked for.
static bool may_come_ahead(const struct fl_vm *vm)
{
    return !vm->template && (vm->state->flags & FL_VM_STATE_PRIVATE) && !vm->shortage.since_ns;
}

struct fl_zero_around fl_zero_around(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                                     uint32_t asked)
{
    struct fl_zero_around around = {.pages = 0};
    const struct fl_region *region = fl_layout_region(&vm->state->layout, page);
    uint64_t region_end = region->first_page + (region->bytes >> FL_PAGE_SHIFT);
    if (!may_come_ahead(vm) || zeros_from(vm, page, page + 1) == 0)
        return around;
    uint64_t pages = window(shard, vm, page);
    // Aligned in the VMM's memory, as its page tables and the guest's own blocks are.
    uint64_t in_block =
        (fl_layout_address(&vm->state->layout, page) >> FL_PAGE_SHIFT) & (pages - 1);
    uint64_t in_region = page - region->first_page;
    uint64_t first = page - (in_block < in_region ? in_block : in_region);
    uint64_t end = page + (pages - in_block > asked ? pages - in_block : asked);
    around.before = (uint32_t)(page - zeros_to(vm, first, page));
    around.pages = (uint32_t)zeros_from(vm, page, end < region_end ? end : region_end);
    return around;
}

void fl_zero_around_before(struct fl_shard *shard, struct fl_vm *vm, uint64_t page, uint32_t asked,
                           uint32_t there, uint32_t before)
{
    uint64_t first = page - before;
    uint64_t pages = 0;
    FL_CRASH_POINT("zeros_before");
    if (before > 0 && fl_install_zero_ahead(vm, first, before, &pages) == FL_INSTALL_GONE) {
        fl_shard_vm_gone(shard, vm);
        return;
    }
    struct fl_vm_history *history = fl_vm_history(vm);
    if (history && pages > 0)
        fl_vm_history_came(history, first, pages, FL_CAME_ZERO);
    uint32_t ahead = (uint32_t)pages + (there > asked ? there - asked : 0);
    fl_counter_add(&shard->stats->ahead_units, ahead);
    fl_counter_add(&shard->stats->zero_ahead_units, ahead);
    if (pages < before) // it ends somewhere in between: its edge is not known
        first = page;
    fl_zero_runs_brought(&vm->zero_runs, first, (uint32_t)(page - first) + there,
                         there < asked ? there : asked);
}
