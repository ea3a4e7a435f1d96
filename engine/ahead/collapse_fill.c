// SPDX-License-Identifier: Apache-2.0
//
// Completing one range of 2 MiB.
#include "engine/ahead/collapse.h"
#include "engine/base/bitmap.h"
#include "engine/cache/frame_cache.h"
#include "engine/serve/install.h"
#include "engine/serve/task.h"
#include "engine/serve/vm_call.h"
#include "engine/serve/vm_image.h"
#include "engine/vm/history.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// Pages of zeros, of 512, that a range may cost at most; pages that a slice puts there.
enum { ZEROS_MOST = FL_HUGE_PAGES / 2, SLICE_PAGES = 64 };

// What the image has from this page on, for the pages that are neither there nor removed.
static struct fl_run run_at(const struct fl_vm *vm, uint64_t page, uint64_t most)
{
    if (fl_layout_image_page(&vm->state->layout, page) >= fl_image_pages(vm->image))
        return (struct fl_run){.zero = true, .pages = 1};
    return fl_vm_run(vm, page, (uint32_t)most);
}

// Without the frame, or the piece of the map, it cannot be.
static void came(struct fl_shard *shard, struct fl_vm *vm, int error)
{
    (void)shard;
    if (error)
        fl_collapse_leave(vm);
}

static enum fl_range_fill await(struct fl_shard *shard, struct fl_vm *vm, struct fl_frame_id id)
{
    fl_task_wait_for(shard, &vm->collapse.task, id, came);
    return FL_RANGE_WAITS;
}

// What is absent must not have been given back, and not too much of it may be zeros.
static enum fl_range_fill judge_range(struct fl_shard *shard, struct fl_vm *vm, uint64_t page)
{
    uint64_t end = page + FL_HUGE_PAGES;
    uint64_t zeros = 0;
    uint64_t at = fl_bits_next_clear(vm->installed, vm->installed, page, end);
    if (at == end)
        return FL_RANGE_FULL;
    while (at < end && zeros <= ZEROS_MOST) {
        if (fl_bit_test(vm->removed, at))
            return FL_RANGE_NOT;
        struct fl_run run = run_at(vm, at, end - at);
        if (run.unread)
            return await(shard, vm, run.id);
        zeros += run.zero ? run.pages : 0;
        at = fl_bits_next_clear(vm->installed, vm->installed, at + run.pages, end);
    }
    return zeros > ZEROS_MOST ? FL_RANGE_NOT : FL_RANGE_FILLING;
}

static enum fl_range_fill note(struct fl_shard *shard, struct fl_vm *vm, enum fl_install result,
                               uint64_t page, uint64_t pages, bool zero)
{
    struct fl_vm_history *history = fl_vm_history(vm);
    fl_counter_add(&vm->collapse.filled, pages);
    fl_counter_add(&vm->collapse.zeros, zero ? pages : 0);
    fl_counter_add(&shard->stats->collapse_filled, pages);
    if (history && pages > 0)
        fl_vm_history_came(history, page, pages, zero ? FL_CAME_ZERO : FL_CAME_FILL);
    if (fl_task_goes_on(shard, &vm->collapse.task, result))
        return FL_RANGE_FILLING;
    return result == FL_INSTALL_FAILED ? FL_RANGE_NOT : FL_RANGE_WAITS;
}

static enum fl_range_fill put_bytes(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                                    const struct fl_run *run)
{
    uint64_t pages = 0;
    const struct fl_frame *frame = fl_cache_lookup(shard->cache, run->id);
    if (!frame)
        return await(shard, vm, run->id);
    if (!fl_call_pin(vm, frame)) // it was evicted just now: the next slice asks for it
        return FL_RANGE_FILLING;
    const uint8_t *from = fl_frame_data(frame) + ((size_t)run->slot << FL_PAGE_SHIFT);
    enum fl_install result = fl_install_copy(vm, page, from, run->pages, FL_WAKE, &pages);
    fl_call_unpin(vm);
    return note(shard, vm, result, page, pages, false);
}

enum fl_range_fill fl_range_fill(struct fl_shard *shard, struct fl_vm *vm, uint64_t page)
{
    uint64_t pages = 0;
    uint64_t end = page + FL_HUGE_PAGES;
    enum fl_range_fill judged = judge_range(shard, vm, page);
    if (judged != FL_RANGE_FILLING)
        return judged;
    uint64_t at = fl_bits_next_clear(vm->installed, vm->removed, page, end);
    uint64_t most = end - at < SLICE_PAGES ? end - at : SLICE_PAGES;
    struct fl_run run = run_at(vm, at, most);
    if (run.unread)
        return await(shard, vm, run.id);
    if (!run.zero)
        return put_bytes(shard, vm, at, &run);
    enum fl_install result = fl_install_zero(vm, at, run.pages, FL_WAKE, &pages);
    return note(shard, vm, result, at, pages, true);
}
