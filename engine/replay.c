// SPDX-License-Identifier: Apache-2.0
#include "engine/replay.h"

#include <inttypes.h>
#include <stdlib.h>

#include "engine/bitmap.h"
#include "engine/clock.h"
#include "engine/engine.h"
#include "engine/install.h"
#include "engine/log.h"
#include "engine/point.h"
#include "engine/template.h"
#include "engine/vm.h"
#include "engine/worker.h"

// What a slice may cost, in shares of a copied page: as much as the frame of one fault.
enum {
    COST_COPY = 16,
    COST_ZERO = 2,
    COST_CALL = 8,
    COST_LOOK = 1,
    SLICE = 16 * COST_COPY,
    ASK_AT_ONCE = 16,
    LOOK_AT_ONCE = 64,
};
// How far ahead frames are asked for, in all VMs of the engine together no more than half the
// cache.
#define AHEAD_MOST ((uint64_t)64 << 20)
#define AHEAD_LEAST ((uint64_t)1 << 20)
#define SCARCE_PAUSE (100 * FL_NS_PER_MS)

static bool slice(struct fl_worker *worker, struct fl_vm *vm);

void fl_replay_init(struct fl_vm *vm)
{
    fl_task_init(&vm->replay.task, vm, slice);
}

// --- begin and end ---

static void stop(struct fl_worker *worker, struct fl_vm *vm, enum fl_replay_state state)
{
    struct fl_replay *replay = &vm->replay;
    vm->state->flags &= ~(uint64_t)FL_VM_STATE_REPLAY;
    replay->state = state;
    if (!replay->plan)
        return;
    fl_counter_add(&replay->ns, fl_now() - replay->begun_ns);
    fl_counter_sub(&worker->stats.replaying, 1);
    fl_task_end(&replay->task);
    fl_plan_unref(replay->plan);
    free(replay->asked);
    free(replay->tried);
    replay->plan = NULL;
    replay->asked = replay->tried = NULL;
}

// The first pages of the trace are worth most: what there may be at most are these.
static uint64_t last_step(const struct fl_plan *plan, uint64_t pages)
{
    uint64_t end = plan->steps;
    while (end > 0 && plan->step[end - 1].pages_before >= pages)
        end--;
    return end;
}

static uint64_t pages_most(const struct fl_worker *worker)
{
    uint64_t bytes = worker->options->replay_bytes;
    return bytes > 0 ? bytes >> FL_PAGE_SHIFT : UINT64_MAX;
}

void fl_replay_begin(struct fl_worker *worker, struct fl_vm *vm, struct fl_plan *plan)
{
    struct fl_replay *replay = &vm->replay;
    if (!plan || vm->phase != FL_VM_SERVING || fl_task_runs(&vm->fill.task) ||
        replay->state != FL_REPLAY_LOADING) {
        fl_plan_unref(plan);
        if (replay->state == FL_REPLAY_LOADING)
            stop(worker, vm, FL_REPLAY_NONE);
        return;
    }
    replay->plan = plan;
    replay->begun_ns = worker->now;
    fl_counter_add(&replay->total, fl_trace_count(plan->trace));
    fl_counter_add(&worker->stats.replaying, 1);
    replay->state = FL_REPLAY_RUNNING;
    replay->end = last_step(plan, pages_most(worker));
    if (vm->page_shift != FL_PAGE_SHIFT && fl_replay_begin_huge(worker, vm) != 0) {
        stop(worker, vm, FL_REPLAY_ENDED);
        return;
    }
    fl_task_start(worker, &replay->task);
    FL_POINT("replay_begun");
}

void fl_replay_end(struct fl_worker *worker, struct fl_vm *vm)
{
    if (vm->replay.plan || vm->replay.state == FL_REPLAY_LOADING)
        stop(worker, vm, FL_REPLAY_ENDED);
}

static void finish(struct fl_worker *worker, struct fl_vm *vm)
{
    struct fl_replay *replay = &vm->replay;
    FL_POINT("replay_done");
    stop(worker, vm, FL_REPLAY_DONE);
    fl_counter_add(&worker->stats.replays, 1);
    fl_log(FL_LOG_INFO,
           "event=replayed vm=%" PRIu64 " image=%s pages=%" PRIu64 " late=%" PRIu64 " us=%" PRIu64,
           vm->id, vm->state->image, fl_counter_get(&replay->pages), fl_counter_get(&replay->late),
           fl_counter_get(&replay->ns) / FL_NS_PER_US);
}

void fl_replay_fault(struct fl_worker *worker, struct fl_vm *vm, uint64_t page, uint32_t pages)
{
    if (!vm->replay.plan)
        return;
    uint64_t at = fl_layout_image_page(&vm->state->layout, page);
    uint64_t late = 0;
    for (uint32_t i = 0; i < pages * fl_vm_page_units(vm); i++)
        late += fl_plan_has(vm->replay.plan, at + i);
    fl_counter_add(&vm->replay.late, late);
    fl_counter_add(&worker->stats.replay_late, late);
}

void fl_replay_came(struct fl_worker *worker, struct fl_vm *vm, uint64_t units)
{
    fl_counter_add(&vm->replay.pages, units);
    fl_counter_add(&worker->stats.replayed_units, units);
}

// --- 4 KiB: the steps of the plan ---

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
static uint64_t shared(const struct fl_vm *vm, uint64_t page, uint64_t pages)
{
    if (!vm->template)
        return 0;
    return fl_template_there(vm->template, fl_layout_image_page(&vm->state->layout, page), pages);
}

// The part of the run from `done` on that lies in one region: looks for what is missing in it.
static bool find_in_run(const struct fl_vm *vm, const struct fl_plan_run *run, struct walk *walk)
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
    uint64_t seen = shared(vm, walk->page, walk->pages);
    walk->done += (uint32_t)seen;
    return seen == 0;
}

static bool find_missing(const struct fl_vm *vm, struct walk *walk)
{
    const struct fl_plan *plan = vm->replay.plan;
    for (; walk->run < walk->step->runs; walk->run++, walk->done = 0) {
        const struct fl_plan_run *run = &plan->run[walk->step->first_run + walk->run];
        while (walk->done < run->pages) {
            if (find_in_run(vm, run, walk))
                return true;
        }
    }
    return false;
}

static bool misses_any(const struct fl_vm *vm, const struct fl_plan_step *step)
{
    struct walk walk = {.step = step};
    return find_missing(vm, &walk);
}

uint64_t fl_replay_distance(const struct fl_worker *worker)
{
    uint64_t all = fl_counter_get(&worker->stats.replaying) * worker->engine->worker_count;
    uint64_t bytes = worker->options->cache_bytes / 2 / (all > 0 ? all : 1);
    bytes = bytes < AHEAD_MOST ? bytes : AHEAD_MOST;
    return (bytes > AHEAD_LEAST ? bytes : AHEAD_LEAST) >> FL_PAGE_SHIFT;
}

// True if any was asked for.
static bool ask_ahead(struct fl_worker *worker, struct fl_vm *vm)
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
    uint64_t end = step[replay->next].frames_before + fl_replay_distance(worker);
    for (unsigned i = 0; i < LOOK_AT_ONCE && count < ASK_AT_ONCE && replay->ahead < replay->end &&
                         step[replay->ahead].frames_before < end;
         i++, replay->ahead++) {
        const struct fl_plan_step *at = &step[replay->ahead];
        if (at->zero || !misses_any(vm, at))
            continue;
        ids[count] = at->id;
        index[count++] = replay->ahead;
    }
    uint32_t begun = count > 0 ? fl_cache_ahead(worker->cache, vm->image, ids, count) : 0;
    if (begun < count)
        replay->ahead = index[begun]; // there is no room for it now
    return begun > 0;
}

enum step { STEP_DONE, STEP_MISSING, STEP_STOP };

static enum fl_install put(struct fl_vm *vm, const struct walk *walk, const uint8_t *data,
                           int *budget, uint64_t *ret_pages)
{
    *budget -= COST_CALL + (int)walk->pages * (data ? COST_COPY : COST_ZERO);
    if (!data)
        return fl_install_zero(vm, walk->page, walk->pages, ret_pages);
    return fl_install_copy(vm, walk->page, data + ((size_t)walk->slot << FL_PAGE_SHIFT),
                           walk->pages, ret_pages);
}

// No more of the frame than a slice has room for: frames may be of 2 MiB.
static void cut(struct walk *walk, int budget, bool zero)
{
    uint64_t most = (uint64_t)budget / (zero ? COST_ZERO : COST_COPY) + 1;
    walk->pages = walk->pages < most ? walk->pages : most;
}

// What was done of it stays done: it is in the bits.
static enum step do_step(struct fl_worker *worker, struct fl_vm *vm, uint64_t index, int *budget)
{
    struct walk walk = {.step = &vm->replay.plan->step[index]};
    const uint8_t *data = NULL;
    *budget -= COST_LOOK;
    while (find_missing(vm, &walk)) {
        uint64_t pages = vm->template ? fl_install_shared(vm, walk.page, walk.pages) : 0;
        if (pages > 0) { // by another VM
            *budget -= COST_CALL;
            walk.done += (uint32_t)pages;
            continue;
        }
        if (!walk.step->zero && !data) {
            const struct fl_frame *frame = fl_cache_lookup(worker->cache, walk.step->id);
            if (!frame)
                return STEP_MISSING;
            data = fl_frame_data(frame);
        }
        if (*budget <= 0)
            return STEP_STOP;
        cut(&walk, *budget, walk.step->zero);
        enum fl_install result = put(vm, &walk, data, budget, &pages);
        FL_POINT("replay_copied");
        if (result == FL_INSTALL_FAILED)
            return STEP_DONE; // whoever touches it is told by the fault
        if (!fl_task_goes_on(worker, &vm->replay.task, result))
            return STEP_STOP;
        fl_replay_came(worker, vm, pages);
        walk.done += (uint32_t)pages;
    }
    return STEP_DONE;
}

static void came(struct fl_worker *worker, struct fl_vm *vm, int error)
{
    (void)worker;
    if (error) // it is left to faults
        vm->replay.next++;
}

// Waits for the frame of the next step, and goes on behind it meanwhile.
static void wait_for_next(struct fl_worker *worker, struct fl_vm *vm)
{
    struct fl_replay *replay = &vm->replay;
    fl_task_wait_for(worker, &replay->task, replay->plan->step[replay->next].id, came);
    if (replay->scan <= replay->next)
        replay->scan = replay->next + 1;
}

// True if anything was done.
static bool slice_small(struct fl_worker *worker, struct fl_vm *vm)
{
    struct fl_replay *replay = &vm->replay;
    int budget = SLICE;
    bool any = ask_ahead(worker, vm);
    while (budget > 0 && replay->task.not_before_ns <= worker->now) {
        bool waits = replay->task.wait != NULL;
        uint64_t *at = waits ? &replay->scan : &replay->next;
        if (*at >= (waits ? replay->ahead : replay->end))
            break;
        enum step result = do_step(worker, vm, *at, &budget);
        if (result == STEP_STOP)
            return true;
        if (result == STEP_MISSING && !waits)
            wait_for_next(worker, vm);
        else
            ++*at;
        any = true;
    }
    return any;
}

// --- both sizes ---

static bool is_scarce(const struct fl_worker *worker, const struct fl_vm *vm)
{
    const struct fl_host_memory *memory = &worker->engine->memory;
    return vm->page_shift == FL_PAGE_SHIFT ? memory->scarce : memory->huge_scarce;
}

// Pages of 2 MiB that are in the making may be ours.
static bool has_ended(const struct fl_vm *vm)
{
    const struct fl_replay *replay = &vm->replay;
    return replay->next >= replay->end && !replay->task.wait &&
           (vm->page_shift == FL_PAGE_SHIFT || vm->parks.count == 0);
}

static bool slice(struct fl_worker *worker, struct fl_vm *vm)
{
    struct fl_replay *replay = &vm->replay;
    if (replay->task.not_before_ns > worker->now)
        return false;
    bool scarce = is_scarce(worker, vm);
    enum fl_replay_state state = scarce ? FL_REPLAY_PAUSED : FL_REPLAY_RUNNING;
    if (replay->state != state)
        replay->state = state;
    if (scarce) {
        replay->task.not_before_ns = worker->now + SCARCE_PAUSE;
        return false;
    }
    bool any = vm->page_shift == FL_PAGE_SHIFT ? slice_small(worker, vm)
                                               : fl_replay_slice_huge(worker, vm);
    if (vm->phase == FL_VM_GONE || !has_ended(vm))
        return any;
    finish(worker, vm);
    return true;
}
