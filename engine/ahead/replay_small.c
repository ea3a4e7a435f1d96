// SPDX-License-Identifier: Apache-2.0
//
// Replay into memory of 4 KiB pages: the steps of the plan.
#include "engine/ahead/replay.h"
#include "engine/base/bitmap.h"
#include "engine/base/crash_point.h"
#include "engine/cache/frame_cache.h"
#include "engine/image/plan.h"
#include "engine/serve/burst.h"
#include "engine/serve/install.h"
#include "engine/serve/task.h"
#include "engine/serve/vm_call.h"
#include "engine/template/template.h"
#include "engine/vm/history.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// What a slice may cost, in shares of a copied page: as much as the frame of one fault, or four
// of them while no VM of the worker faults; or, while the guest is at the heels of its replay, up
// to 1 MiB, which all VMs of the worker that are in replay share: a fault of another one may have
// to wait for so long.
enum {
    COST_COPY = 16,
    COST_ZERO = 2,
    COST_CALL = 8,
    COST_LOOK = 1,
    SLICE_LEAST = 16, // pages
    SLICE_QUIET = 64, // while no fault comes
    SLICE_MOST = 256,
    SLICE_GROWTH = 4,
    NEAR_STEPS = 256,
    ASK_AT_ONCE = 16,
    LOOK_AT_ONCE = 64,
};

// A way through the pages of a step that the VM has and still misses.
struct walk {
    const struct fl_plan_step *step;
    uint32_t run;
    uint32_t done; // pages of that run
    // What was found:
    uint64_t page; // of the VM
    uint64_t pages;
    uint32_t slot;
};

// How many of the pages from this one on are in the VM's template: it sees them without us.
static uint64_t template_pages(const struct fl_vm *vm, uint64_t page, uint64_t pages)
{
    if (!vm->template)
        return 0;
    return fl_template_there(vm->template, fl_layout_image_page(&vm->state->layout, page), pages);
}

// The part of the run from `done` on that lies in one region: looks for what is missing in it.
static bool walk_find_in_run(const struct fl_vm *vm, const struct fl_plan_run *run,
                             struct walk *walk)
{
    uint64_t left = 0;
    uint64_t page = 0;
    if (!fl_layout_from_image(&vm->state->layout, run->page + walk->done, &page, &left)) {
        walk->done++;
        return false;
    }
    uint64_t end = page + (left < run->pages - walk->done ? left : run->pages - walk->done);
    walk->page = fl_bits_next_clear(vm->removed, vm->installed, page, end);
    walk->done += (uint32_t)(walk->page - page);
    if (walk->page == end)
        return false;
    walk->pages = fl_bits_next_set(vm->removed, vm->installed, walk->page, end) - walk->page;
    walk->slot = run->slot + walk->done;
    uint64_t seen = template_pages(vm, walk->page, walk->pages);
    walk->done += (uint32_t)seen;
    return seen == 0;
}

static bool walk_find_missing(const struct fl_vm *vm, struct walk *walk)
{
    const struct fl_plan *plan = vm->replay.plan;
    for (; walk->run < walk->step->runs; walk->run++, walk->done = 0) {
        const struct fl_plan_run *run = &plan->run[walk->step->first_run + walk->run];
        while (walk->done < run->pages) {
            if (walk_find_in_run(vm, run, walk))
                return true;
        }
    }
    return false;
}

static bool step_misses_any(const struct fl_vm *vm, const struct fl_plan_step *step)
{
    struct walk walk = {.step = step};
    return walk_find_missing(vm, &walk);
}

// True if any was asked for.
static bool steps_ask_ahead(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_replay *replay = &vm->replay;
    const struct fl_plan_step *step = replay->plan->step;
    struct fl_frame_id ids[ASK_AT_ONCE];
    uint64_t index[ASK_AT_ONCE];
    uint32_t count = 0;
    if (replay->ahead < replay->next)
        replay->ahead = replay->next;
    if (replay->next == replay->end)
        return false;
    uint64_t end = step[replay->next].frames_before + fl_replay_distance(shard);
    for (unsigned i = 0; i < LOOK_AT_ONCE && count < ASK_AT_ONCE && replay->ahead < replay->end &&
                         step[replay->ahead].frames_before < end;
         i++, replay->ahead++) {
        const struct fl_plan_step *at = &step[replay->ahead];
        if (at->zero || !step_misses_any(vm, at))
            continue;
        ids[count] = at->id;
        index[count++] = replay->ahead;
    }
    uint32_t begun =
        count > 0 ? fl_cache_ahead_for(shard->cache, vm->image, ids, count, vm->id) : 0;
    if (begun < count)
        replay->ahead = index[begun]; // there is no room for it now
    return begun > 0;
}

// --- slices ---

static bool step_has(const struct fl_plan *plan, const struct fl_plan_step *step, uint64_t page)
{
    for (uint32_t i = 0; i < step->runs; i++) {
        const struct fl_plan_run *run = &plan->run[step->first_run + i];
        if (page >= run->page && page - run->page < run->pages)
            return true;
    }
    return false;
}

// Whether it is among what comes next: no farther off than the order of replay is from that of
// touch.
static bool is_near(const struct fl_replay *replay, uint64_t page)
{
    const struct fl_plan *plan = replay->plan;
    uint64_t at = replay->task.wait ? replay->scan : replay->next;
    if (!fl_plan_has(plan, page) || at >= replay->end)
        return false;
    uint64_t end = plan->step[at].pages_before + FL_TRACE_WINDOW;
    uint64_t last = at + NEAR_STEPS < replay->end ? at + NEAR_STEPS : replay->end;
    for (; at < last && plan->step[at].pages_before < end; at++) {
        if (step_has(plan, &plan->step[at], page))
            return true;
    }
    return false;
}

void fl_replay_pace(struct fl_vm *vm, uint64_t image_page)
{
    uint32_t slice = vm->replay.slice > SLICE_LEAST ? vm->replay.slice : SLICE_LEAST;
    if (!is_near(&vm->replay, image_page))
        vm->replay.slice = slice / SLICE_GROWTH;
    else if (slice < SLICE_MOST)
        vm->replay.slice = slice * SLICE_GROWTH;
}

struct budget {
    int cost;
    enum fl_wake wake;
    struct fl_burst burst; // of FL_WAKE_LATER
};

static struct budget budget_begin(const struct fl_shard *shard, struct fl_vm *vm)
{
    uint64_t all = fl_counter_get(&shard->stats->replaying);
    uint64_t pages = SLICE_MOST / (all > 0 ? all : 1);
    uint64_t least = shard->hot.next == &shard->hot ? SLICE_QUIET : SLICE_LEAST;
    pages = pages < vm->replay.slice ? pages : vm->replay.slice;
    struct budget budget;
    budget.wake = pages > SLICE_LEAST ? FL_WAKE_LATER : FL_WAKE;
    budget.cost = (int)(pages > least ? pages : least) * COST_COPY;
    fl_burst_begin(&budget.burst, vm);
    return budget;
}

enum step { STEP_DONE, STEP_MISSING, STEP_STOP };

static enum fl_install step_copy(struct fl_vm *vm, const struct walk *walk,
                                 const struct fl_frame *frame, enum fl_wake wake,
                                 uint64_t *ret_pages)
{
    *ret_pages = 0;
    if (!fl_call_pin(vm, frame)) // it was evicted just now
        return FL_INSTALL_AGAIN;
    const uint8_t *from = fl_frame_data(frame) + ((size_t)walk->slot << FL_PAGE_SHIFT);
    enum fl_install result = fl_install_copy(vm, walk->page, from, walk->pages, wake, ret_pages);
    fl_call_unpin(vm);
    return result;
}

// Zeros, if there is no frame.
static enum fl_install step_put(struct fl_vm *vm, const struct walk *walk,
                                const struct fl_frame *frame, struct budget *budget,
                                uint64_t *ret_pages)
{
    budget->cost -= COST_CALL + (int)walk->pages * (frame ? COST_COPY : COST_ZERO);
    enum fl_install result =
        frame ? step_copy(vm, walk, frame, budget->wake, ret_pages)
              : fl_install_zero(vm, walk->page, walk->pages, budget->wake, ret_pages);
    if (budget->wake == FL_WAKE_LATER)
        fl_burst_add(&budget->burst, walk->page, *ret_pages);
    return result;
}

static void step_note(struct fl_vm *vm, const struct walk *walk, uint64_t pages, enum fl_came how)
{
    struct fl_vm_history *history = fl_vm_history(vm);
    if (history)
        fl_vm_history_came(history, walk->page, pages, how);
}

// No more of the frame than a slice has room for: frames may be of 2 MiB.
static void walk_cut(struct walk *walk, int budget, bool zero)
{
    uint64_t most = (uint64_t)budget / (zero ? COST_ZERO : COST_COPY) + 1;
    walk->pages = walk->pages < most ? walk->pages : most;
}

// What was done of it stays done: it is in the bits.
static enum step step_do(struct fl_shard *shard, struct fl_vm *vm, uint64_t index,
                         struct budget *budget)
{
    struct walk walk = {.step = &vm->replay.plan->step[index]};
    budget->cost -= COST_LOOK;
    while (walk_find_missing(vm, &walk)) {
        uint64_t pages = vm->template ? fl_install_shared(vm, walk.page, walk.pages) : 0;
        if (pages > 0) { // by another VM
            budget->cost -= COST_CALL;
            step_note(vm, &walk, pages, FL_CAME_TEMPLATE);
            walk.done += (uint32_t)pages;
            continue;
        }
        const struct fl_frame *frame = NULL;
        if (!walk.step->zero) {
            frame = fl_cache_lookup_for(shard->cache, walk.step->id, vm->id);
            if (!frame)
                return STEP_MISSING;
        }
        if (budget->cost <= 0)
            return STEP_STOP;
        walk_cut(&walk, budget->cost, walk.step->zero);
        enum fl_install result = step_put(vm, &walk, frame, budget, &pages);
        FL_CRASH_POINT("replay_copied");
        step_note(vm, &walk, pages, walk.step->zero ? FL_CAME_ZERO : FL_CAME_REPLAY);
        if (result == FL_INSTALL_FAILED)
            return STEP_DONE; // the fault of a thread that touches it says why
        if (!fl_task_goes_on(shard, &vm->replay.task, result))
            return STEP_STOP;
        fl_task_replayed(shard, vm, pages);
        walk.done += (uint32_t)pages;
    }
    if (!walk.step->zero)
        fl_cache_taken(shard->cache, walk.step->id, vm->id);
    return STEP_DONE;
}

static void step_frame_came(struct fl_shard *shard, struct fl_vm *vm, int error)
{
    (void)shard;
    if (error) // it is left to faults
        vm->replay.next++;
}

// Waits for the frame of the next step, and goes on behind it meanwhile.
static void step_wait_for_next(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_replay *replay = &vm->replay;
    fl_task_wait_to_take(shard, &replay->task, replay->plan->step[replay->next].id,
                         step_frame_came);
    if (replay->scan <= replay->next)
        replay->scan = replay->next + 1;
}

// True if anything was done.
static bool steps_do(struct fl_shard *shard, struct fl_vm *vm, struct budget *budget)
{
    struct fl_replay *replay = &vm->replay;
    bool any = false;
    while (budget->cost > 0 && replay->task.not_before_ns <= shard->now) {
        bool waits = replay->task.wait != NULL;
        uint64_t *at = waits ? &replay->scan : &replay->next;
        if (*at >= (waits ? replay->ahead : replay->end))
            break;
        enum step result = step_do(shard, vm, *at, budget);
        if (result == STEP_STOP)
            return true;
        if (result == STEP_MISSING && !waits)
            step_wait_for_next(shard, vm);
        else
            ++*at;
        any = true;
    }
    return any;
}

bool fl_replay_slice_small(struct fl_shard *shard, struct fl_vm *vm)
{
    struct budget budget = budget_begin(shard, vm);
    bool any = steps_ask_ahead(shard, vm);
    any |= steps_do(shard, vm, &budget);
    fl_burst_end(&budget.burst);
    return any;
}
