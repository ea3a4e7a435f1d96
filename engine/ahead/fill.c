// SPDX-License-Identifier: Apache-2.0
#include "engine/ahead/fill.h"

#include <errno.h>
#include <inttypes.h>

#include "engine/ahead/collapse.h"
#include "engine/ahead/fill_direct.h"
#include "engine/ahead/fill_frames.h"
#include "engine/ahead/first_pages.h"
#include "engine/ahead/replay.h"
#include "engine/base/bitmap.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/serve/complete.h"
#include "engine/serve/install.h"
#include "engine/serve/resolve.h"
#include "engine/serve/task.h"
#include "engine/serve/vm_call.h"
#include "engine/serve/vm_image.h"
#include "engine/vm/history.h"
#include "engine/vm/recording.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

enum {
    SLICE_PAGES = 256, // 4 KiB pages of zeros in a slice; of bytes, a frame's at most
    AT_ONCE = 4,       // huge pages waited for, or pages for which memory is lacking
    GIVEN_UP_AT_ONCE = 256,
    IN_VAIN = 3, // looks that find what was filled missing
};

static bool fill_slice(struct fl_shard *shard, struct fl_vm *vm);

void fl_fill_init(struct fl_vm *vm)
{
    vm->fill = (struct fl_fill){.goal = FL_FILL_NONE};
    fl_task_init(&vm->fill.task, vm, fill_slice);
}

static void fill_begin_anew(struct fl_vm *vm)
{
    struct fl_fill *fill = &vm->fill;
    fill->next = 0;
    fill->end = vm->state->layout.pages;
    fill->seen = 0;
    fill->in_vain = 0;
    fill->ahead = 0;
}

void fl_fill_begin(struct fl_shard *shard, struct fl_vm *vm, enum fl_fill_goal goal)
{
    struct fl_fill *fill = &vm->fill;
    if (fill->goal != FL_FILL_NONE && (fill->goal == goal || goal == FL_FILL_NONE))
        return;
    fl_vm_recording_end(shard, vm);
    fl_replay_end(shard, vm);
    fl_first_pages_end(vm);
    fl_collapse_end(shard, vm);
    if (!fl_task_runs(&fill->task))
        fill->begun_ns = shard->now;
    fill->goal = goal;
    fill_begin_anew(vm);
    fl_task_start(shard, &fill->task);
}

// From the beginning: what was passed may have been left in a park. The bits say what is there.
void fl_fill_suspend(struct fl_vm *vm)
{
    struct fl_fill *fill = &vm->fill;
    fill->suspended = fl_task_runs(&fill->task);
    if (!fill->suspended)
        return;
    fill_begin_anew(vm);
    fl_task_end(&fill->task);
}

void fl_fill_resume(struct fl_shard *shard, struct fl_vm *vm)
{
    if (vm->fill.suspended)
        fl_task_start(shard, &vm->fill.task);
    vm->fill.suspended = false;
}

// Memory has been lacking for as long as a page may be waited for.
static bool lacks_for_long(const struct fl_shard *shard, const struct fl_vm *vm)
{
    uint64_t since = vm->shortage.since_ns;
    return since && since + shard->options->read_timeout_ms * FL_NS_PER_MS <= shard->now;
}

// Pages of 2 MiB are much work each; those for which memory is lacking are tried again and again.
static bool waits_for_enough(const struct fl_shard *shard, const struct fl_vm *vm)
{
    uint32_t most = lacks_for_long(shard, vm) ? GIVEN_UP_AT_ONCE : AT_ONCE;
    return (vm->page_shift != FL_PAGE_SHIFT || vm->shortage.since_ns) && vm->parks.count >= most;
}

// By the path of a fault, which keeps the park until the page is settled: one that was passed and
// is in no park would be zeros for a VM that is let go. Without memory for that, later.
static void fill_settle_page(struct fl_shard *shard, struct fl_vm *vm, int error)
{
    struct fl_fill *fill = &vm->fill;
    struct fl_park *park = NULL;
    if (!fl_park_find(vm, fill->next)) {
        park = fl_park_new(shard, vm, fill->next, 0, fl_resolve_parked);
        if (!park) {
            fl_task_pause_long(shard, &fill->task);
            return;
        }
        park->error = error;
        if (lacks_for_long(shard, vm)) // no page of it has to wait for as long once more
            park->deadline_ns = shard->now;
        fl_resolve_parked(shard, park);
    }
    fill->next++;
}

static void fill_frame_came(struct fl_shard *shard, struct fl_vm *vm, int error)
{
    if (error) // the pages that wait for it here fail, each by the VM's policy
        fill_settle_page(shard, vm, error);
}

static bool is_bad(const struct fl_fill *fill, struct fl_frame_id piece)
{
    return fill->bad.pack == piece.pack && fill->bad.frame == piece.frame;
}

static void fill_map_came(struct fl_shard *shard, struct fl_vm *vm, int error)
{
    (void)shard;
    if (!error)
        vm->fill.bad = (struct fl_frame_id){.pack = 0};
    vm->fill.bad_error = error;
}

// The piece of the map that page `next` is in has to be read first. One that cannot be fails all of
// its pages, and is not tried again for each of them.
static void fill_await_map(struct fl_shard *shard, struct fl_vm *vm, struct fl_frame_id piece)
{
    struct fl_fill *fill = &vm->fill;
    if (is_bad(fill, piece) && fill->bad_error) {
        fill_settle_page(shard, vm, fill->bad_error);
        return;
    }
    fill->bad = piece; // unless it comes
    fill->bad_error = 0;
    fl_task_wait_for(shard, &fill->task, piece, fill_map_came);
}

static void fill_note(struct fl_vm *vm, uint64_t pages, enum fl_came how)
{
    struct fl_vm_history *history = fl_vm_history(vm);
    if (history)
        fl_vm_history_came(history, vm->fill.next, pages, how);
}

static void fill_advance(struct fl_shard *shard, struct fl_vm *vm, enum fl_install result,
                         uint64_t pages)
{
    struct fl_fill *fill = &vm->fill;
    if (result == FL_INSTALL_SHORT) // waits in a park, as the page of a fault does
        fill_settle_page(shard, vm, 0);
    else if (fl_task_goes_on(shard, &fill->task, result))
        fill->next += pages;
    else if (result == FL_INSTALL_FAILED)
        fill_settle_page(shard, vm, -EINVAL);
}

// [fill->next, end) is neither there nor removed, and within one region.
static void fill_small(struct fl_shard *shard, struct fl_vm *vm, uint64_t end)
{
    struct fl_fill *fill = &vm->fill;
    uint64_t pages = 0;
    uint64_t image_page = fl_layout_image_page(&vm->state->layout, fill->next);
    uint64_t shared = vm->template ? fl_install_shared(vm, fill->next, end - fill->next) : 0;
    if (shared > 0) {
        fill_note(vm, shared, FL_CAME_TEMPLATE);
        fill->next += shared;
        return;
    }
    struct fl_run run = fl_image_run(vm->image, image_page, (uint32_t)(end - fill->next));
    if (run.unread) {
        fill_await_map(shard, vm, run.id);
        return;
    }
    if (run.zero && fill->goal == FL_FILL_NONZERO) {
        fill->next += run.pages;
        return;
    }
    if (run.zero) {
        enum fl_install result = fl_install_zero(vm, fill->next, run.pages, FL_WAKE, &pages);
        fill_note(vm, pages, FL_CAME_ZERO);
        fill_advance(shard, vm, result, pages);
        return;
    }
    const struct fl_frame *frame = fl_cache_lookup_for(shard->cache, run.id, vm->id);
    struct fl_filled filled;
    if (!frame && fl_fill_direct(vm, end, &filled)) {
        fill->next += filled.pages;
        fill_advance(shard, vm, filled.result, 0);
        return;
    }
    if (!frame || fill->next < fill->ahead)
        fl_fill_ask_ahead(shard, vm);
    if (!frame) {
        fl_task_wait_to_take(shard, &fill->task, run.id, fill_frame_came);
        return;
    }
    if (!fl_call_pin(vm, frame)) // it was evicted just now: the next slice asks for it
        return;
    const uint8_t *from = fl_frame_data(frame) + ((size_t)run.slot << FL_PAGE_SHIFT);
    enum fl_install result = fl_install_copy(vm, fill->next, from, run.pages, FL_WAKE, &pages);
    fl_call_unpin(vm);
    fl_fill_took(shard, vm, run.id);
    fill_note(vm, pages, FL_CAME_FILL);
    fill_advance(shard, vm, result, pages);
}

static void fill_huge(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_fill *fill = &vm->fill;
    struct fl_frame_id unread;
    enum fl_page_kind kind = fl_vm_page_kind(vm, fill->next, &unread);
    if (kind == FL_PAGE_UNREAD) {
        fill_await_map(shard, vm, unread);
        return;
    }
    if (kind == FL_PAGE_ZERO && fill->goal == FL_FILL_NONZERO) {
        fill->next++;
        return;
    }
    fl_fill_ask_ahead_huge(shard, vm);
    fill_settle_page(shard, vm, 0);
}

void fl_fill_report(struct fl_shard *shard, struct fl_vm *vm)
{
    uint64_t ns = fl_now() - vm->fill.begun_ns;
    uint64_t poisoned = fl_counter_get(&vm->state->counters.poisoned);
    fl_log(poisoned ? FL_LOG_ERROR : FL_LOG_INFO,
           "event=filled vm=%" PRIu64 " image=%s us=%" PRIu64 " poisoned=%" PRIu64, vm->id,
           vm->state->image, ns / FL_NS_PER_US, poisoned);
    if (shard->options->filled && vm->phase == FL_VM_SERVING && poisoned == 0)
        shard->options->filled(vm->id, ns);
}

static void fill_finish(struct fl_shard *shard, struct fl_vm *vm)
{
    fl_fill_took_all(shard, vm);
    if (vm->phase == FL_VM_RELEASING) {
        shard->ops->release(shard, vm);
        return;
    }
    fl_fill_report(shard, vm);
    fl_task_end(&vm->fill.task);
    fl_fill_direct_end(vm);
}

// What was filled and is absent all the same, again and again, is not absent: it is another
// process's memory that we look at, or its pages are dropped without an event.
static void look_was_in_vain(struct fl_vm *vm)
{
    fl_log(FL_LOG_ERROR,
           "event=presence_contradicts vm=%" PRIu64 " image=%s pid=%" PRId64
           " reason=\"pages that were filled are not there in the memory of this process\"",
           vm->id, vm->state->image, vm->state->pid);
    fl_presence_close(&vm->presence);
}

// All was filled, to the best of our knowledge: looks whether it is there.
static void fill_look(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_fill *fill = &vm->fill;
    uint64_t end = 0;
    switch (fl_complete_look(vm, fill->seen, fill->goal == FL_FILL_ALL, &end)) {
    case FL_COMPLETE_THERE:
        fill->seen = end;
        fill->in_vain = 0;
        // Those that could not be filled are not in this number any more.
        fl_counter_sub(&vm->state->counters.poisoned, fill->probed * fl_vm_page_units(vm));
        fill->probed = 0;
        break;
    case FL_COMPLETE_MISSING:
        fill->next = fill->seen;
        fill->end = end;
        fl_counter_add(&shard->stats->found_missing, 1);
        if (++fill->in_vain == IN_VAIN)
            look_was_in_vain(vm);
        break;
    case FL_COMPLETE_AGAIN:
        fl_task_pause_long(shard, &fill->task);
        break;
    case FL_COMPLETE_GONE:
        fl_shard_vm_gone(shard, vm);
        break;
    }
}

// What the image has as zero for as long as one likes is passed in one go, up to `end` at most: a
// large image mostly is.
static bool fill_skip_zeros(struct fl_vm *vm, uint64_t end)
{
    struct fl_fill *fill = &vm->fill;
    uint64_t image_page = fl_layout_image_page(&vm->state->layout, fill->next);
    uint64_t pages = end - fill->next < UINT32_MAX ? end - fill->next : UINT32_MAX;
    if (fill->goal != FL_FILL_NONZERO || vm->template || image_page >= fl_image_pages(vm->image))
        return false;
    struct fl_run run = fl_image_run(vm->image, image_page, (uint32_t)pages);
    fill->next += run.zero ? run.pages : 0;
    return run.zero;
}

static bool fill_slice(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_fill *fill = &vm->fill;
    const struct fl_layout *layout = &vm->state->layout;
    bool huge = vm->page_shift != FL_PAGE_SHIFT;
    if (fill->task.wait || fill->task.not_before_ns > shard->now || waits_for_enough(shard, vm))
        return false;
    if (fill->unregistered) {
        shard->ops->release(shard, vm);
        return true;
    }
    fill->next = fl_bits_next_clear(vm->removed, vm->installed, fill->next, fill->end);
    if (fill->next == fill->end) {
        if (vm->parks.count > 0) // some of them may be ours
            return false;
        if (fill->seen < layout->pages)
            fill_look(shard, vm);
        else
            fill_finish(shard, vm);
        return true;
    }
    if (huge) {
        fill_huge(shard, vm);
        return true;
    }
    const struct fl_region *region = fl_layout_region(layout, fill->next);
    uint64_t end = region->first_page + (region->bytes >> layout->page_shift);
    end = end < fill->end ? end : fill->end;
    if (fill_skip_zeros(vm, end))
        return true;
    end = end < fill->next + SLICE_PAGES ? end : fill->next + SLICE_PAGES;
    fill_small(shard, vm, fl_bits_next_set(vm->removed, vm->installed, fill->next, end));
    return true;
}
