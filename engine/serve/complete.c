// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/complete.h"

#include <errno.h>

#include "engine/base/bitmap.h"
#include "engine/host/presence.h"
#include "engine/serve/vm_call.h"
#include "engine/serve/vm_image.h"
#include "engine/template/template.h"
#include "engine/vm/vm.h"

// WINDOW: pages that are looked at in one go; PROBES: that are asked for one by one.
enum { WINDOW = 2048, PROBES = 64, RUNS = 128 };

// How many of the pages from this one on, at most `count`, read as zeros if they are absent.
static uint64_t zeros_from(const struct fl_vm *vm, uint64_t page, uint64_t count)
{
    if (vm->page_shift != FL_PAGE_SHIFT)
        return fl_vm_page_is_zero(vm, page);
    uint64_t first = fl_layout_image_page(&vm->state->layout, page);
    uint32_t most = count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
    struct fl_run run = fl_image_run(vm->image, first, most);
    return run.zero ? run.pages : 0;
}

static bool in_template(const struct fl_vm *vm, uint64_t page)
{
    return vm->template &&
           fl_template_has(vm->template, fl_layout_image_page(&vm->state->layout, page));
}

// The first page in [page, end) that must be there; end if there is none.
static uint64_t next_needed(const struct fl_vm *vm, uint64_t page, uint64_t end, bool all)
{
    while (page < end) {
        page = fl_bits_next_clear(vm->removed, vm->removed, page, end);
        if (page == end)
            break;
        uint64_t skip = all ? 0 : zeros_from(vm, page, end - page);
        if (skip == 0 && !in_template(vm, page))
            break;
        page += skip > 0 ? skip : 1;
    }
    return page < end ? page : end;
}

// --- by the pagemap ---

// Of [from, to) nothing is there.
static bool look_at_gap(struct fl_vm *vm, uint64_t from, uint64_t to, bool all)
{
    bool any = false;
    for (uint64_t page = next_needed(vm, from, to, all); page < to;
         page = next_needed(vm, page + 1, to, all)) {
        uint64_t address = fl_layout_address(&vm->state->layout, page);
        if (fl_vm_may_be_dropped(vm, page) || !fl_vm_registered(vm, address))
            continue; // or the VMM has it from somewhere else by now
        fl_bits_clear(vm->installed, page, 1);
        any = true;
    }
    return any;
}

// Pages of which a part is absent count as absent.
static int look_by_pagemap(struct fl_vm *vm, const struct fl_region *region, uint64_t page,
                           uint64_t end, bool all, uint64_t *ret_end)
{
    struct fl_presence_run run[RUNS];
    unsigned shift = vm->page_shift;
    uint64_t start = region->base + ((page - region->first_page) << shift);
    uint64_t looked = 0;
    bool missing = false;
    int runs =
        fl_presence_runs(&vm->presence, start, start + ((end - page) << shift), run, RUNS, &looked);
    if (runs < 0)
        return runs;
    uint64_t from = page;
    for (int i = 0; i < runs; i++) {
        uint64_t first = page + ((run[i].start - start + fl_vm_page_bytes(vm) - 1) >> shift);
        if (first > from)
            missing |= look_at_gap(vm, from, first, all);
        from = page + ((run[i].end - start) >> shift);
    }
    // Its last page may have been seen in part only: it is looked at anew.
    *ret_end = looked == start + ((end - page) << shift) ? end : page + ((looked - start) >> shift);
    if (*ret_end == page) // of one page there are more runs than there is room for
        *ret_end = page + 1;
    if (from < *ret_end)
        missing |= look_at_gap(vm, from, *ret_end, all);
    return missing ? FL_COMPLETE_MISSING : FL_COMPLETE_THERE;
}

// --- by asking ---

static enum fl_complete look_by_poison(struct fl_vm *vm, uint64_t page, uint64_t end, bool all,
                                       uint64_t *ret_end)
{
    bool missing = false;
    unsigned probes = 0;
    for (page = next_needed(vm, page, end, all); page < end && probes < PROBES;
         page = next_needed(vm, page + 1, end, all), probes++) {
        uint64_t address = fl_layout_address(&vm->state->layout, page);
        int error = fl_vm_poison(vm, address, fl_vm_page_bytes(vm));
        if (error == -ESRCH)
            return FL_COMPLETE_GONE;
        if (error == -ENOSYS)
            break; // the answers to the fills were true
        if (error == -EAGAIN || error == -ENOMEM)
            return FL_COMPLETE_AGAIN;
        if (error != 0)
            continue; // it is there, or the VMM has it from somewhere else by now
        fl_counter_add(&vm->state->counters.poisoned, fl_vm_page_units(vm));
        if (fl_vm_may_be_dropped(vm, page))
            continue; // what it is to be is not known: it stays poisoned
        fl_bits_clear(vm->installed, page, 1);
        vm->fill.probed++;
        missing = true;
    }
    *ret_end = page < end && probes == PROBES ? page : end;
    return missing ? FL_COMPLETE_MISSING : FL_COMPLETE_THERE;
}

enum fl_complete fl_complete_look(struct fl_vm *vm, uint64_t page, bool all, uint64_t *ret_end)
{
    const struct fl_layout *layout = &vm->state->layout;
    const struct fl_region *region = fl_layout_region(layout, page);
    uint64_t end = region->first_page + (region->bytes >> layout->page_shift);
    // A large image is mostly zero: nothing there needs a look, nor memory for its bits.
    uint64_t skip = all ? 0 : zeros_from(vm, page, end - page);
    if (skip >= WINDOW) {
        *ret_end = page + skip;
        return FL_COMPLETE_THERE;
    }
    end = end < page + WINDOW ? end : page + WINDOW;
    int result = look_by_pagemap(vm, region, page, end, all, ret_end);
    if (result >= 0)
        return (enum fl_complete)result;
    if (!fl_vm_alive(vm))
        return FL_COMPLETE_GONE;
    return look_by_poison(vm, page, end, all, ret_end);
}
