// SPDX-License-Identifier: Apache-2.0
#include "engine/ahead/collapse.h"

#include <errno.h>
#include <inttypes.h>

#include "engine/ahead/collapser.h"
#include "engine/base/bitmap.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/host/host_memory.h"
#include "engine/image/plan.h"
#include "engine/serve/task.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// Times through: ranges that are full, or three quarters, half, a quarter of them. TRIES of one
// range, and ROUNDS in all, for what was to be tried later. IN_VAIN: calls in a row.
enum { STEP = FL_HUGE_PAGES / 4, LOOKS_A_SLICE = 256, TRIES = 4, ROUNDS = 4, IN_VAIN = 3 };
enum { SHARE = 4 };                        // of the time, at most one in so many is within calls
#define QUIET (20 * FL_NS_PER_MS)          // since the VM's last fault
#define REPLAY_PAUSE (20 * FL_NS_PER_MS)   //
#define CAPTURE_PAUSE (200 * FL_NS_PER_MS) //
#define SHORT_PAUSE (500 * FL_NS_PER_MS) // for want of memory; twice as long each time, 4 s at most
#define LATER FL_NS_PER_S                // before the next round; twice as long each time
#define ROOM ((uint64_t)16 << 20)        // of a VM's memory limit, left alone

static bool collapse_slice(struct fl_shard *shard, struct fl_vm *vm);

void fl_collapse_init(struct fl_vm *vm)
{
    fl_task_init(&vm->collapse.task, vm, collapse_slice);
}

// --- begin and end ---

static void show(struct fl_vm *vm)
{
    fl_counter_set(&vm->collapse.huge, vm->collapse.ranges.huge);
}

static void from_the_first(struct fl_vm *vm)
{
    vm->collapse.least = 3 * STEP;
    vm->collapse.next = 0;
    vm->collapse.again = false;
}

static void start(struct fl_shard *shard, struct fl_vm *vm)
{
    if (fl_task_runs(&vm->collapse.task))
        return;
    fl_counter_add(&shard->stats->collapsing, 1);
    fl_task_start(shard, &vm->collapse.task);
}

// The answer to a call that is under way is about a range that is no longer the next one.
static void forget_call(struct fl_vm *vm)
{
    if (vm->collapse.job)
        vm->collapse.job->vm = NULL;
    vm->collapse.job = NULL;
}

static void stop(struct fl_shard *shard, struct fl_vm *vm)
{
    forget_call(vm);
    if (!fl_task_runs(&vm->collapse.task))
        return;
    fl_counter_sub(&shard->stats->collapsing, 1);
    fl_task_end(&vm->collapse.task);
}

void fl_collapse_begin(struct fl_shard *shard, struct fl_vm *vm, const struct fl_plan *plan)
{
    struct fl_collapse *collapse = &vm->collapse;
    if (collapse->state != FL_COLLAPSE_WAITING)
        return;
    bool wanted = plan && vm->phase == FL_VM_SERVING && !fl_task_runs(&vm->fill.task);
    if (!wanted || fl_huge_ranges_init(&collapse->ranges, &vm->state->layout, plan->has,
                                       plan->image_pages, FL_COLLAPSE_LEAST) != 0) {
        collapse->state = FL_COLLAPSE_ENDED;
        return;
    }
    fl_counter_set(&collapse->wanted, collapse->ranges.hot);
    collapse->state = FL_COLLAPSE_RUNNING;
    from_the_first(vm);
    start(shard, vm);
}

static bool is_under_way(const struct fl_vm *vm)
{
    enum fl_collapse_state state = vm->collapse.state;
    return state == FL_COLLAPSE_WAITING || state == FL_COLLAPSE_RUNNING ||
           state == FL_COLLAPSE_PAUSED;
}

void fl_collapse_follow(struct fl_shard *shard, struct fl_vm *vm, const struct fl_plan *plan)
{
    struct fl_collapse *collapse = &vm->collapse;
    bool wanted = (vm->state->flags & FL_VM_STATE_HUGE) != 0;
    if (wanted && is_under_way(vm))
        return;
    stop(shard, vm);
    fl_huge_ranges_fini(&collapse->ranges);
    collapse->state = wanted ? FL_COLLAPSE_WAITING : FL_COLLAPSE_OFF;
    if (!wanted)
        return;
    fl_counter_set(&collapse->left, 0);
    collapse->in_vain = 0;
    collapse->rounds = 0;
    fl_collapse_begin(shard, vm, plan);
}

void fl_collapse_end(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_collapse *collapse = &vm->collapse;
    vm->state->flags &= ~(uint64_t)FL_VM_STATE_HUGE;
    stop(shard, vm);
    fl_huge_ranges_fini(&collapse->ranges);
    if (is_under_way(vm))
        collapse->state = FL_COLLAPSE_ENDED;
}

void fl_collapse_suspend(struct fl_shard *shard, struct fl_vm *vm)
{
    stop(shard, vm);
}

void fl_collapse_resume(struct fl_shard *shard, struct fl_vm *vm)
{
    if (vm->collapse.state == FL_COLLAPSE_RUNNING || vm->collapse.state == FL_COLLAPSE_PAUSED)
        start(shard, vm);
}

void fl_collapse_again(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_collapse *collapse = &vm->collapse;
    enum fl_collapse_state state = collapse->state;
    if (!collapse->ranges.range ||
        (state != FL_COLLAPSE_RUNNING && state != FL_COLLAPSE_PAUSED && state != FL_COLLAPSE_DONE))
        return;
    forget_call(vm);
    for (uint64_t i = 0; i < collapse->ranges.count; i++) {
        if (collapse->ranges.range[i].state == FL_RANGE_HUGE)
            fl_huge_range_move(&collapse->ranges, i, FL_RANGE_HOT);
    }
    show(vm);
    collapse->state = FL_COLLAPSE_RUNNING;
    collapse->rounds = 0;
    from_the_first(vm);
    start(shard, vm);
}

void fl_collapse_removed(struct fl_vm *vm, uint64_t page, uint64_t count)
{
    if (!vm->collapse.ranges.range)
        return;
    uint64_t split = fl_huge_ranges_removed(&vm->collapse.ranges, &vm->state->layout, page, count);
    fl_counter_add(&vm->collapse.split, split);
    show(vm);
}

static void finish(struct fl_shard *shard, struct fl_vm *vm)
{
    const struct fl_collapse *collapse = &vm->collapse;
    stop(shard, vm);
    vm->collapse.state = FL_COLLAPSE_DONE;
    fl_log(FL_LOG_INFO,
           "event=collapsed vm=%" PRIu64 " image=%s wanted=%" PRIu64 " huge=%" PRIu64
           " left=%" PRIu64 " filled=%" PRIu64 " zeros=%" PRIu64 " us=%" PRIu64,
           vm->id, vm->state->image, fl_counter_get(&collapse->wanted),
           fl_counter_get(&collapse->huge), fl_counter_get(&collapse->left),
           fl_counter_get(&collapse->filled), fl_counter_get(&collapse->zeros),
           fl_counter_get(&collapse->ns) / FL_NS_PER_US);
}

// --- when ---

static void pause_for(const struct fl_shard *shard, struct fl_vm *vm, uint64_t ns)
{
    vm->collapse.task.not_before_ns = shard->now + ns;
}

// What was put there since the last look at the limit counts as memory: a look every half second
// alone would let hundreds of ranges be completed beyond the limit, and the kernel kills the VM.
static bool is_short(const struct fl_shard *shard, const struct fl_vm *vm)
{
    uint64_t limit = atomic_load(&vm->limit.bytes);
    uint64_t since = (fl_vm_filled(vm) - atomic_load(&vm->limit.pages)) << FL_PAGE_SHIFT;
    return shard->memory->scarce ||
           (limit > 0 && atomic_load(&vm->limit.used) + since + ROOM > limit);
}

// No look is taken at a VM to which nothing was done.
static bool limit_is_known(const struct fl_vm *vm)
{
    return atomic_load(&vm->limit.looked) || fl_vm_filled(vm) == 0;
}

static bool replay_is_to_come(const struct fl_vm *vm)
{
    enum fl_replay_state state = vm->replay.state;
    return state == FL_REPLAY_LOADING || state == FL_REPLAY_RUNNING || state == FL_REPLAY_PAUSED;
}

static void refuse(struct fl_shard *shard, struct fl_vm *vm)
{
    stop(shard, vm);
    vm->collapse.state = FL_COLLAPSE_REFUSED;
}

// False: not now, and perhaps not any more.
static bool may_go_on(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_collapse *collapse = &vm->collapse;
    uint64_t quiet_ns = vm->last_active_ns + QUIET;
    if (fl_collapser_refused(shard->collapser)) {
        refuse(shard, vm);
        return false;
    }
    enum fl_collapse_state state = is_short(shard, vm) ? FL_COLLAPSE_PAUSED : FL_COLLAPSE_RUNNING;
    if (collapse->state != state)
        collapse->state = state;
    if (state == FL_COLLAPSE_PAUSED)
        pause_for(shard, vm, SHORT_PAUSE);
    else if (replay_is_to_come(vm) || !limit_is_known(vm))
        pause_for(shard, vm, REPLAY_PAUSE);
    else if (vm->capture || vm->unprotect.runs)
        pause_for(shard, vm, CAPTURE_PAUSE);
    else if (quiet_ns > shard->now)
        collapse->task.not_before_ns = quiet_ns;
    else
        return true;
    return false;
}

// --- ranges ---

static void leave(struct fl_vm *vm, uint64_t index)
{
    fl_huge_range_move(&vm->collapse.ranges, index, FL_RANGE_LEFT);
    fl_counter_add(&vm->collapse.left, 1);
}

void fl_collapse_leave(struct fl_vm *vm)
{
    leave(vm, vm->collapse.next);
}

// Later, or never.
static void try_later(struct fl_vm *vm, uint64_t index)
{
    struct fl_huge_range *range = &vm->collapse.ranges.range[index];
    if (++range->tries == TRIES)
        leave(vm, index);
    else
        vm->collapse.again = true;
}

// Without room for 2 MiB, or because of a page of zeros in it.
static void note_in_vain(const struct fl_shard *shard, struct fl_vm *vm)
{
    unsigned times = ++vm->collapse.in_vain;
    if (times >= IN_VAIN)
        pause_for(shard, vm, SHORT_PAUSE << (times - IN_VAIN < 3 ? times - IN_VAIN : 3));
}

static void note_huge(struct fl_shard *shard, struct fl_vm *vm, uint64_t index)
{
    uint64_t page = fl_huge_range_page(&vm->state->layout, index);
    uint64_t end = page + FL_HUGE_PAGES;
    vm->collapse.in_vain = 0;
    fl_counter_add(&shard->stats->collapsed, 1);
    // A part of it may have been given back meanwhile.
    if (fl_bits_next_clear(vm->installed, vm->installed, page, end) == end)
        fl_huge_range_move(&vm->collapse.ranges, index, FL_RANGE_HUGE);
    else
        leave(vm, index);
    show(vm);
}

static void call_ended(struct fl_shard *shard, struct fl_vm *vm, int error, uint64_t ns)
{
    struct fl_collapse *collapse = &vm->collapse;
    uint64_t index = collapse->next++;
    collapse->job = NULL;
    fl_counter_add(&collapse->ns, ns);
    pause_for(shard, vm, (SHARE - 1) * ns);
    fl_counter_add(&shard->stats->collapse_failed, error != 0);
    switch (error) {
    case 0:
        note_huge(shard, vm, index);
        break;
    case -EAGAIN:
        try_later(vm, index);
        break;
    case -EBUSY:
    case -ENOMEM:
        try_later(vm, index);
        note_in_vain(shard, vm);
        break;
    case -EACCES: // this VM alone; of all, the engine tells (fl_engine_look())
        fl_log(FL_LOG_WARNING,
               "event=huge_refused vm=%" PRIu64 " image=%s pid=%" PRId64
               " reason=\"the server may not trace the VM's process: its working set stays in "
               "pages of 4 KiB\"",
               vm->id, vm->state->image, vm->state->pid);
        refuse(shard, vm);
        break;
    case -EPERM:
    case -ENOSYS:
        refuse(shard, vm);
        break;
    case -ESRCH: // its end is told by others
        stop(shard, vm);
        break;
    default:
        leave(vm, index);
        break;
    }
}

static void call(struct fl_shard *shard, struct fl_vm *vm, uint64_t page)
{
    uint64_t address = fl_layout_address(&vm->state->layout, page);
    if (fl_collapser_post(shard->collapser, &shard->mailbox, vm, vm->pidfd, address, call_ended,
                          &vm->collapse.job) != 0)
        fl_task_pause_long(shard, &vm->collapse.task);
}

// Looks at some ranges; true if `next` is one to be put together.
static bool find_range(struct fl_vm *vm)
{
    struct fl_collapse *collapse = &vm->collapse;
    for (unsigned looks = LOOKS_A_SLICE; looks > 0 && collapse->next < collapse->ranges.count;
         looks--, collapse->next++) {
        const struct fl_huge_range *range = &collapse->ranges.range[collapse->next];
        if (range->state == FL_RANGE_HOT && range->pages >= collapse->least)
            return true;
    }
    return false;
}

static void time_through(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_collapse *collapse = &vm->collapse;
    collapse->next = 0;
    if (collapse->least > FL_COLLAPSE_LEAST) {
        collapse->least -= STEP;
    } else if (collapse->again && collapse->rounds < ROUNDS) {
        pause_for(shard, vm, LATER << collapse->rounds);
        collapse->rounds++;
        collapse->again = false;
    } else {
        finish(shard, vm);
    }
}

static bool collapse_slice(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_collapse *collapse = &vm->collapse;
    if (collapse->job || collapse->task.wait || collapse->task.not_before_ns > shard->now ||
        !may_go_on(shard, vm))
        return false;
    if (!find_range(vm)) {
        if (collapse->next == collapse->ranges.count)
            time_through(shard, vm);
        return true;
    }
    uint64_t page = fl_huge_range_page(&vm->state->layout, collapse->next);
    switch (fl_range_fill(shard, vm, page)) {
    case FL_RANGE_FULL:
        call(shard, vm, page);
        break;
    case FL_RANGE_NOT:
        leave(vm, collapse->next);
        break;
    case FL_RANGE_FILLING:
    case FL_RANGE_WAITS:
        break;
    }
    return true;
}
