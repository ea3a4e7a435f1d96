// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/want.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/base/probe.h"
#include "engine/host/uffd.h"
#include "engine/serve/kill.h"
#include "engine/serve/outside.h"
#include "engine/serve/shortage.h"
#include "engine/serve/task.h"
#include "engine/serve/vm_call.h"
#include "engine/serve/vm_image.h"
#include "engine/vm/history.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

enum { REASON = 512 };

// What a page is parked for, as docs/tracing.md has it.
enum waits { WAITS_FRAME, WAITS_MAP, WAITS_HUGE, WAITS_PAUSE };

static void probe_park(const struct fl_want *want, enum waits waits)
{
    FL_PROBE(fault_parked, want->vm->id, fl_vm_image_name(want->vm),
             fl_layout_image_page(&want->vm->state->layout, want->page), (int)waits,
             (int)(want->read_ns != 0));
}

static enum fl_stage want_stage(const struct fl_want *want)
{
    if (want->replayed)
        return FL_STAGE_REPLAY;
    return want->park ? FL_STAGE_READ : FL_STAGE_CACHED;
}

static enum fl_came want_brought(const struct fl_want *want, enum fl_outcome outcome)
{
    if (outcome == FL_POISONED)
        return FL_CAME_FAILED;
    if (want->shared)
        return FL_CAME_TEMPLATE;
    if (outcome == FL_ZEROED)
        return FL_CAME_ZERO;
    if (want->read_ns)
        return FL_CAME_DEMAND;
    return want->vm->fill.goal == FL_FILL_NONE ? FL_CAME_REPLAY : FL_CAME_FILL;
}

static enum fl_waited want_waited(const struct fl_want *want)
{
    unsigned waited = want->park ? want->park->waited : 0;
    return waited > 0 ? (enum fl_waited)(31 - __builtin_clz(waited)) : FL_WAITED_NOT;
}

static void want_note(const struct fl_want *want, enum fl_outcome outcome,
                      struct fl_vm_history *history)
{
    enum fl_came how = want_brought(want, outcome);
    fl_vm_history_came(history, want->page, 1, how);
    if (want->there > 1)
        fl_vm_history_came(history, want->page + 1, want->there - 1,
                           how == FL_CAME_DEMAND ? FL_CAME_NEIGHBOUR : how);
    if (want->read_ns)
        fl_vm_history_fault(history, want->page, want->read_ns, want_waited(want));
}

enum fl_outcome fl_want_done(struct fl_want *want, enum fl_outcome outcome)
{
    if (want->read_ns)
        fl_resolved(want->shard, want->vm, outcome, want_stage(want), want->read_ns);
    else if (want->vm->replay.plan && outcome != FL_POISONED)
        fl_task_replayed(want->shard, want->vm, fl_vm_page_units(want->vm));
    struct fl_vm_history *history = fl_vm_history(want->vm);
    if (history)
        want_note(want, outcome, history);
    if (want->park)
        fl_park_end(want->park);
    return outcome;
}

static struct fl_park *want_new_park(const struct fl_want *want, uint32_t frames)
{
    struct fl_park *park = fl_park_new(want->shard, want->vm, want->page, frames, want->resume);
    if (!park)
        return NULL;
    park->read_ns = want->read_ns;
    park->pages = want->pages;
    park->replayed = want->replayed;
    return park;
}

// Parks the page to try again soon; later, if it is starved (park.h). Without memory for that, the
// waiter is woken to fault anew.
static enum fl_outcome want_again(struct fl_want *want, int starved, enum fl_waited waited)
{
    struct fl_vm *vm = want->vm;
    if (!want->park) {
        want->park = want_new_park(want, 0);
        probe_park(want, WAITS_PAUSE);
    }
    if (want->park)
        want->park->starved = starved;
    if (want->park)
        want->park->waited |= (uint8_t)(1U << waited);
    if (want->park)
        fl_park_retry(want->park);
    else
        fl_uffd_wake(vm->uffd, fl_layout_address(&vm->state->layout, want->page),
                     fl_vm_page_bytes(vm));
    return FL_PARKED;
}

// Why a page cannot be had: a sentence.
static const char *failure_text(const struct fl_vm *vm, int error, char *buf, size_t size)
{
    char lack[REASON - 64];
    if (error == -ENOSPC)
        snprintf(buf, size, "there was no memory for the page in time: %s",
                 fl_shortage_reason(vm, lack, sizeof(lack)));
    else if (error == -ENOMEM)
        snprintf(buf, size, "the engine had no memory to read the page in time");
    else if (error == -ETIMEDOUT)
        snprintf(buf, size, "storage did not return the page in time (--read-timeout)");
    else if (error == -EINVAL)
        snprintf(buf, size,
                 "the kernel refuses to install the page: is the memory what the handshake said?");
    else
        snprintf(buf, size, "its frame %s", fl_frame_strerror(error));
    return buf;
}

// A line for the first, second, fourth, eighth ... page: a bad pack must not flood the log.
static void log_poison(const struct fl_vm *vm, uint64_t page, int error)
{
    char reason[REASON];
    char path[FL_VM_PATH];
    uint64_t times = fl_counter_get(&vm->state->counters.poisoned) / fl_vm_page_units(vm);
    if (times == 0 || (times & (times - 1)) != 0)
        return;
    fl_log(FL_LOG_ERROR,
           "event=poison vm=%" PRIu64 " image=%s image_page=%" PRIu64 " pages=%" PRIu64
           " reason=\"%s\" file=%s",
           vm->id, fl_vm_image_name(vm), fl_layout_image_page(&vm->state->layout, page), times,
           failure_text(vm, error, reason, sizeof(reason)), fl_vm_file(vm, path));
}

// Tries to fail the page again later.
static enum fl_outcome want_fail_again(struct fl_want *want, int error)
{
    want_again(want, 0, FL_WAITED_NOT);
    if (want->park)
        want->park->error = error;
    return FL_PARKED;
}

// Replay alone wanted it: no fault has to be answered.
static bool want_is_for_replay(const struct fl_want *want)
{
    return !want->read_ns && want->vm->fill.goal == FL_FILL_NONE;
}

static enum fl_outcome want_leave(struct fl_want *want)
{
    if (want->park)
        fl_park_end(want->park);
    return FL_PARKED;
}

static bool kill_vm(struct fl_vm *vm, int error)
{
    char reason[REASON];
    return fl_kill_wanted(vm) && fl_kill(atomic_load(&vm->owner)->killer, vm,
                                         failure_text(vm, error, reason, sizeof(reason)));
}

// The page cannot be had. By the VM's policy its toucher is told, or the VM ends; it never waits
// on. Where it cannot be seen whether it is there, it is poisoned before anything else: that shows.
enum fl_outcome fl_want_fail(struct fl_want *want, int error)
{
    struct fl_vm *vm = want->vm;
    bool there = false;
    bool seen = fl_install_sees(vm);
    if (want_is_for_replay(want))
        return want_leave(want);
    fl_vm_note_file(vm, want->page, want->park ? want->park->failed : (struct fl_frame_id){0});
    if (seen && kill_vm(vm, error))
        return want_fail_again(want, error); // parked until it is dead
    switch (fl_install_poison(vm, want->page, &there)) {
    case FL_INSTALL_DONE:
        if (there && !seen && vm->fill.probed > 0)
            vm->fill.probed--; // it may be what a look has poisoned, and stays so
        if (there)
            return fl_want_done(want, FL_INSTALLED);
        FL_PROBE(poison, vm->id, fl_vm_image_name(vm),
                 fl_layout_image_page(&vm->state->layout, want->page), error);
        log_poison(vm, want->page, error);
        if (!seen)
            kill_vm(vm, error);
        return fl_want_done(want, FL_POISONED);
    case FL_INSTALL_GONE:
        fl_shard_vm_gone(want->shard, vm);
        return FL_PARKED;
    case FL_INSTALL_FAILED:
        // Perhaps its pages are of another size than it said; only a kernel that cannot poison
        // kills.
        if (fl_fault_outside(vm, fl_layout_address(&vm->state->layout, want->page)) == FL_POISONED)
            return fl_want_done(want, FL_POISONED);
        break;
    case FL_INSTALL_AGAIN:
    case FL_INSTALL_SHORT:
        break;
    }
    return want_fail_again(want, error);
}

enum fl_outcome fl_want_settle(struct fl_want *want, enum fl_install result,
                               enum fl_outcome outcome)
{
    switch (result) {
    case FL_INSTALL_DONE:
        return fl_want_done(want, outcome);
    case FL_INSTALL_AGAIN:
        want_again(want, 0, FL_WAITED_REMOVE);
        // A VM may be frozen in the middle of its madvise: that is no reason to fail its pages.
        if (want->park)
            want->park->deadline_ns = fl_park_deadline(want->shard);
        return FL_PARKED;
    case FL_INSTALL_SHORT:
        return want_again(want, -ENOSPC, FL_WAITED_MEMORY);
    case FL_INSTALL_GONE:
        fl_shard_vm_gone(want->shard, want->vm);
        return FL_PARKED;
    case FL_INSTALL_FAILED:
        break;
    }
    return fl_want_fail(want, -EINVAL);
}

enum fl_outcome fl_want_install_zeros(struct fl_want *want, uint32_t count)
{
    uint64_t pages = 0;
    enum fl_install result = fl_install_zero(want->vm, want->page, count, FL_WAKE, &pages);
    want->there = (uint32_t)pages;
    return fl_want_settle(want, result, FL_ZEROED);
}

enum fl_outcome fl_want_install_bytes(struct fl_want *want, const struct fl_frame *frame,
                                      uint32_t slot, uint32_t count)
{
    uint64_t pages = 0;
    if (!fl_call_pin(want->vm, frame)) // it was evicted just now
        return want_again(want, 0, FL_WAITED_NOT);
    const uint8_t *from = fl_frame_data(frame) + ((size_t)slot << FL_PAGE_SHIFT);
    enum fl_install result = fl_install_copy(want->vm, want->page, from, count, FL_WAKE, &pages);
    fl_call_unpin(want->vm);
    want->there = (uint32_t)pages;
    return fl_want_settle(want, result, FL_INSTALLED);
}

enum fl_outcome fl_want_zeros(struct fl_want *want)
{
    return fl_want_install_zeros(want, 1);
}

enum fl_outcome fl_want_frame(struct fl_want *want, const struct fl_frame *frame)
{
    return fl_want_install_bytes(want, frame, 0, 1);
}

// A park with room for so many waiters, in the place of what it waited in; false without memory,
// and then it stays where it is: a page that no fault asked for would be forgotten.
static bool want_park(struct fl_want *want, uint32_t frames, enum waits waits)
{
    struct fl_park *before = want->park;
    struct fl_park *new = want_new_park(want, frames);
    if (!new)
        return false;
    new->waited = (uint8_t)((before ? before->waited : 0) | 1U << FL_WAITED_READ);
    if (before && before->deadline_ns < new->deadline_ns)
        new->deadline_ns = before->deadline_ns;
    if (before)
        fl_park_end(before);
    want->park = new;
    probe_park(want, waits);
    return true;
}

// After its frames were asked for. Memory that is short may be there before the deadline.
static enum fl_outcome want_asked(struct fl_want *want, int error)
{
    if (want->park->outstanding > 0)
        return FL_PARKED;
    if (error == -ENOMEM)
        return want_again(want, -ENOMEM, FL_WAITED_MEMORY);
    want->park->error = error;
    want->anew = true;
    return FL_PARKED;
}

enum fl_outcome fl_want_huge(struct fl_want *want, uint64_t first_page)
{
    if (!want_park(want, 1, WAITS_HUGE))
        return want_again(want, -ENOMEM, FL_WAITED_MEMORY);
    fl_counter_add(&want->shard->stats->misses, 1);
    return want_asked(want, fl_park_want_huge(want->park, first_page));
}

enum fl_outcome fl_want_map(struct fl_want *want, struct fl_frame_id piece)
{
    FL_CRASH_POINT("map_wanted");
    want->run.pages = 0; // it is another one when that was read
    return want_park(want, 1, WAITS_MAP) ? want_asked(want, fl_park_want(want->park, piece))
                                         : want_again(want, -ENOMEM, FL_WAITED_MEMORY);
}

enum fl_outcome fl_want_frames(struct fl_want *want, const struct fl_frame_id *ids, uint32_t frames)
{
    int error = 0;
    if (!want_park(want, frames, WAITS_FRAME))
        return want_again(want, -ENOMEM, FL_WAITED_MEMORY);
    fl_counter_add(&want->shard->stats->misses, 1);
    for (uint32_t i = 0; i < frames && !error; i++)
        error = fl_park_want(want->park, ids[i]);
    return want_asked(want, error);
}

const struct fl_frame *fl_want_find(const struct fl_want *want, struct fl_frame_id id)
{
    const struct fl_frame *frame = want->park ? fl_park_frame(want->park, id) : NULL;
    return frame ? frame : fl_cache_lookup_for(want->shard->cache, id, want->vm->id);
}
