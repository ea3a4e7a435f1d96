// SPDX-License-Identifier: Apache-2.0
#include "engine/ahead/first_pages.h"

#include "engine/base/bitmap.h"
#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/cache/frame_cache.h"
#include "engine/serve/install.h"
#include "engine/serve/task.h"
#include "engine/serve/vm_call.h"
#include "engine/vm/history.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

enum { RANGES_A_SLICE = 16 };
#define REPLAY_PAUSE (100 * FL_NS_PER_MS)

// What became of a range: it is DONE with, or the task WAITS for something that it needs.
enum range { RANGE_DONE, RANGE_WAITS };

static bool first_pages_slice(struct fl_shard *shard, struct fl_vm *vm);

void fl_first_pages_init(struct fl_vm *vm)
{
    fl_task_init(&vm->first_pages.task, vm, first_pages_slice);
}

void fl_first_pages_begin(struct fl_shard *shard, struct fl_vm *vm)
{
    if ((vm->state->flags & FL_VM_STATE_FIRST_PAGES) && vm->image && vm->phase == FL_VM_SERVING)
        fl_task_start(shard, &vm->first_pages.task);
}

void fl_first_pages_suspend(struct fl_vm *vm)
{
    fl_task_end(&vm->first_pages.task);
}

void fl_first_pages_end(struct fl_vm *vm)
{
    vm->state->flags &= ~(uint64_t)FL_VM_STATE_FIRST_PAGES;
    fl_task_end(&vm->first_pages.task);
}

// Without the frame, or the piece of the map: the next range.
static void came(struct fl_shard *shard, struct fl_vm *vm, int error)
{
    (void)shard;
    vm->first_pages.range += error != 0;
}

static enum range judge(struct fl_shard *shard, struct fl_vm *vm, enum fl_install result)
{
    if (result == FL_INSTALL_SHORT) { // whoever touches the others pays for them
        fl_first_pages_end(vm);
        return RANGE_WAITS;
    }
    if (!fl_task_goes_on(shard, &vm->first_pages.task, result))
        return result == FL_INSTALL_FAILED ? RANGE_DONE : RANGE_WAITS;
    fl_counter_add(&vm->first_pages.pages, 1);
    fl_counter_add(&shard->stats->first_pages, 1);
    FL_CRASH_POINT("first_page");
    return RANGE_DONE;
}

static enum range put_zeros(struct fl_shard *shard, struct fl_vm *vm, uint64_t page)
{
    uint64_t pages = 0;
    // The shared page of zeros would keep the range from becoming one page (collapse.h).
    enum fl_install result = vm->state->flags & FL_VM_STATE_HUGE
                                 ? fl_install_copy(vm, page, shard->zeros, 1, FL_WAKE, &pages)
                                 : fl_install_zero(vm, page, 1, FL_WAKE, &pages);
    if (pages > 0 && fl_vm_history(vm))
        fl_vm_history_came(fl_vm_history(vm), page, pages, FL_CAME_ZERO);
    return judge(shard, vm, result);
}

static enum range put_bytes(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                            const struct fl_run *run)
{
    uint64_t pages = 0;
    const struct fl_frame *frame = fl_cache_lookup(shard->cache, run->id);
    if (!frame) {
        fl_task_wait_for(shard, &vm->first_pages.task, run->id, came);
        return RANGE_WAITS;
    }
    if (!fl_call_pin(vm, frame)) // it was evicted just now: the next slice asks for it
        return RANGE_WAITS;
    const uint8_t *from = fl_frame_data(frame) + ((size_t)run->slot << FL_PAGE_SHIFT);
    enum fl_install result = fl_install_copy(vm, page, from, 1, FL_WAKE, &pages);
    fl_call_unpin(vm);
    if (pages > 0 && fl_vm_history(vm))
        fl_vm_history_came(fl_vm_history(vm), page, pages, FL_CAME_FILL);
    return judge(shard, vm, result);
}

// The first page of [*page, end) that is zeros, or else that has bytes; `end` if all were given
// back. False: *ret_run is a piece of the map that has to be read first.
static bool find_page(const struct fl_vm *vm, uint64_t *page, uint64_t end, struct fl_run *ret_run)
{
    uint64_t found = end;
    uint64_t at = fl_bits_next_clear(vm->removed, vm->installed, *page, end);
    while (at < end) {
        uint64_t image_page = fl_layout_image_page(&vm->state->layout, at);
        struct fl_run run = {.zero = true, .pages = 1}; // beyond the image's end
        if (image_page < fl_image_pages(vm->image))
            run = fl_image_run(vm->image, image_page, (uint32_t)(end - at));
        if (found == end || run.zero || run.unread) {
            found = at;
            *ret_run = run;
        }
        if (run.unread)
            return false;
        if (run.zero)
            break;
        at = fl_bits_next_clear(vm->removed, vm->installed, at + run.pages, end);
    }
    *page = found;
    return true;
}

static enum range range_do(struct fl_shard *shard, struct fl_vm *vm, uint64_t page)
{
    struct fl_run run = {.zero = true};
    uint64_t end = page + FL_HUGE_PAGES;
    if (fl_bits_next_set(vm->installed, vm->installed, page, end) != end)
        return RANGE_DONE;
    if (!find_page(vm, &page, end, &run)) {
        fl_task_wait_for(shard, &vm->first_pages.task, run.id, came);
        return RANGE_WAITS;
    }
    if (page == end)
        return RANGE_DONE;
    if (run.zero)
        return put_zeros(shard, vm, page);
    return vm->first_pages.bytes ? put_bytes(shard, vm, page, &run) : RANGE_DONE;
}

// True: the range to look at begins with this page.
static bool next_range(struct fl_vm *vm, uint64_t *ret_page)
{
    struct fl_first_pages *first = &vm->first_pages;
    const struct fl_layout *layout = &vm->state->layout;
    for (; first->region < layout->regions; first->region++, first->range = 0) {
        uint64_t ranges = fl_region_ranges(&layout->region[first->region], ret_page);
        *ret_page += first->range * FL_HUGE_PAGES;
        if (first->range < ranges)
            return true;
    }
    return false;
}

static void pass_ended(struct fl_vm *vm)
{
    struct fl_first_pages *first = &vm->first_pages;
    if (first->bytes) {
        fl_first_pages_end(vm);
        return;
    }
    first->bytes = true;
    first->region = 0;
    first->range = 0;
}

static bool replay_is_to_come(const struct fl_vm *vm)
{
    enum fl_replay_state state = vm->replay.state;
    return state == FL_REPLAY_LOADING || state == FL_REPLAY_RUNNING || state == FL_REPLAY_PAUSED;
}

static bool first_pages_slice(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_first_pages *first = &vm->first_pages;
    uint64_t page = 0;
    if (first->task.wait || first->task.not_before_ns > shard->now)
        return false;
    if (first->bytes && replay_is_to_come(vm)) {
        first->task.not_before_ns = shard->now + REPLAY_PAUSE;
        return false;
    }
    for (unsigned i = 0; i < RANGES_A_SLICE; i++) {
        if (!next_range(vm, &page)) {
            pass_ended(vm);
            return true;
        }
        if (range_do(shard, vm, page) == RANGE_WAITS)
            return true;
        first->range++;
    }
    return true;
}
