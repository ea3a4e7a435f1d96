// SPDX-License-Identifier: Apache-2.0
#include "engine/ahead/replay.h"

#include <inttypes.h>
#include <stdlib.h>

#include "engine/base/bitmap.h"
#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/base/probe.h"
#include "engine/host/host_memory.h"
#include "engine/image/plan.h"
#include "engine/serve/task.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// How far ahead frames are asked for, in all VMs of the engine together no more than half the
// cache. What is read and decompressed of that is what one restore adds to the engine's memory.
#define AHEAD_MOST ((uint64_t)20 << 20)
#define AHEAD_LEAST ((uint64_t)1 << 20)
#define SCARCE_PAUSE (100 * FL_NS_PER_MS)

static bool replay_slice(struct fl_shard *shard, struct fl_vm *vm);

void fl_replay_init(struct fl_vm *vm)
{
    fl_task_init(&vm->replay.task, vm, replay_slice);
}

// --- begin and end ---

static void replay_stop(struct fl_shard *shard, struct fl_vm *vm, enum fl_replay_state state)
{
    struct fl_replay *replay = &vm->replay;
    vm->state->flags &= ~(uint64_t)FL_VM_STATE_REPLAY;
    replay->state = state;
    if (!replay->plan)
        return;
    fl_counter_add(&replay->ns, fl_now() - replay->begun_ns);
    fl_counter_sub(&shard->stats->replaying, 1);
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

static uint64_t pages_most(const struct fl_shard *shard)
{
    uint64_t bytes = shard->options->replay_bytes;
    return bytes > 0 ? bytes >> FL_PAGE_SHIFT : UINT64_MAX;
}

void fl_replay_begin(struct fl_shard *shard, struct fl_vm *vm, struct fl_plan *plan)
{
    struct fl_replay *replay = &vm->replay;
    if (!plan || vm->phase != FL_VM_SERVING || fl_task_runs(&vm->fill.task) ||
        replay->state != FL_REPLAY_LOADING) {
        fl_plan_unref(plan);
        if (replay->state == FL_REPLAY_LOADING)
            replay_stop(shard, vm, FL_REPLAY_NONE);
        return;
    }
    replay->plan = plan;
    replay->begun_ns = shard->now;
    fl_counter_add(&replay->total, fl_trace_count(plan->trace));
    fl_counter_add(&shard->stats->replaying, 1);
    replay->state = FL_REPLAY_RUNNING;
    replay->end = last_step(plan, pages_most(shard));
    replay->slice = 0;
    if (vm->page_shift != FL_PAGE_SHIFT && fl_replay_begin_huge(shard, vm) != 0) {
        replay_stop(shard, vm, FL_REPLAY_ENDED);
        return;
    }
    fl_task_start(shard, &replay->task);
    FL_CRASH_POINT("replay_begun");
}

void fl_replay_end(struct fl_shard *shard, struct fl_vm *vm)
{
    if (vm->replay.plan || vm->replay.state == FL_REPLAY_LOADING)
        replay_stop(shard, vm, FL_REPLAY_ENDED);
}

void fl_replay_suspend(struct fl_shard *shard, struct fl_vm *vm)
{
    if (!vm->replay.plan)
        return;
    fl_counter_sub(&shard->stats->replaying, 1);
    fl_task_end(&vm->replay.task);
}

void fl_replay_resume(struct fl_shard *shard, struct fl_vm *vm)
{
    if (!vm->replay.plan)
        return;
    fl_counter_add(&shard->stats->replaying, 1);
    fl_task_start(shard, &vm->replay.task);
}

static void replay_finish(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_replay *replay = &vm->replay;
    FL_CRASH_POINT("replay_done");
    replay_stop(shard, vm, FL_REPLAY_DONE);
    fl_counter_add(&shard->stats->replays, 1);
    fl_log(FL_LOG_INFO,
           "event=replayed vm=%" PRIu64 " image=%s pages=%" PRIu64 " late=%" PRIu64 " us=%" PRIu64,
           vm->id, vm->state->image, fl_counter_get(&replay->pages), fl_counter_get(&replay->late),
           fl_counter_get(&replay->ns) / FL_NS_PER_US);
}

// How many pages of the trace are in it.
static uint64_t planned_units(const struct fl_vm *vm, uint64_t page)
{
    uint64_t at = fl_layout_image_page(&vm->state->layout, page);
    uint64_t planned = 0;
    for (uint32_t i = 0; i < fl_vm_page_units(vm); i++)
        planned += fl_plan_has(vm->replay.plan, at + i);
    return planned;
}

// Replay would have had to bring it. Not to where something is: a second toucher's message is read
// when the first one's has been answered, and replay may have been faster than a message. Not to
// what was given back.
static bool page_can_be_late(const struct fl_vm *vm, uint64_t page)
{
    return !fl_bit_test(vm->installed, page) && !fl_bit_test(vm->removed, page);
}

bool fl_replay_fault(struct fl_shard *shard, struct fl_vm *vm, uint64_t page, uint32_t pages)
{
    uint64_t late = 0;
    if (!vm->replay.plan)
        return false;
    uint64_t planned = planned_units(vm, page);
    if (page_can_be_late(vm, page))
        late = planned;
    for (uint32_t i = 1; i < pages; i++)
        late += page_can_be_late(vm, page + i) ? planned_units(vm, page + i) : 0;
    if (late > 0)
        FL_PROBE(replay_late, vm->id, fl_vm_image_name(vm),
                 fl_layout_image_page(&vm->state->layout, page), late);
    fl_counter_add(&vm->replay.late, late);
    fl_counter_add(&fl_vm_filling(vm->state)->late, late);
    fl_counter_add(&shard->stats->replay_late, late);
    if (vm->page_shift == FL_PAGE_SHIFT)
        fl_replay_pace(vm, fl_layout_image_page(&vm->state->layout, page));
    return planned > 0;
}

// --- both sizes ---

uint64_t fl_replay_distance(const struct fl_shard *shard)
{
    uint64_t all = fl_counter_get(&shard->stats->replaying) * shard->options->workers;
    uint64_t bytes = shard->options->cache_bytes / 2 / (all > 0 ? all : 1);
    bytes = bytes < AHEAD_MOST ? bytes : AHEAD_MOST;
    return (bytes > AHEAD_LEAST ? bytes : AHEAD_LEAST) >> FL_PAGE_SHIFT;
}

static bool is_scarce(const struct fl_shard *shard, const struct fl_vm *vm)
{
    const struct fl_host_memory *memory = shard->memory;
    return vm->page_shift == FL_PAGE_SHIFT ? memory->scarce : memory->huge_scarce;
}

// Pages of 2 MiB that are in the making may be ours.
static bool replay_has_ended(const struct fl_vm *vm)
{
    const struct fl_replay *replay = &vm->replay;
    return replay->next >= replay->end && !replay->task.wait &&
           (vm->page_shift == FL_PAGE_SHIFT || vm->parks.count == 0);
}

static bool replay_slice(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_replay *replay = &vm->replay;
    if (replay->task.not_before_ns > shard->now)
        return false;
    bool scarce = is_scarce(shard, vm);
    enum fl_replay_state state = scarce ? FL_REPLAY_PAUSED : FL_REPLAY_RUNNING;
    if (replay->state != state)
        replay->state = state;
    if (scarce) {
        replay->task.not_before_ns = shard->now + SCARCE_PAUSE;
        return false;
    }
    bool any = vm->page_shift == FL_PAGE_SHIFT ? fl_replay_slice_small(shard, vm)
                                               : fl_replay_slice_huge(shard, vm);
    if (vm->phase == FL_VM_GONE || !replay_has_ended(vm))
        return any;
    replay_finish(shard, vm);
    return true;
}
