// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/resolve.h"

#include <errno.h>
#include <inttypes.h>

#include "engine/base/bitmap.h"
#include "engine/base/log.h"
#include "engine/serve/install.h"
#include "engine/serve/resolve_huge.h"
#include "engine/serve/vm_call.h"
#include "engine/serve/vm_image.h"
#include "engine/serve/want.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// What comes with a page of zeros (zero_around.h).
static uint32_t zeros_at_once(const struct fl_want *want)
{
    return want->run.zero && want->run.pages > 0 ? want->run.pages : 1;
}

static enum fl_outcome want_resolve_small(struct fl_want *want)
{
    struct fl_run run = want->run;
    if (run.pages == 0)
        run = fl_vm_run(want->vm, want->page, want->pages);
    if (run.unread)
        return fl_want_map(want, run.id);
    if (run.zero) // one by one in a template, where they are for all
        return fl_want_install_zeros(want, want->vm->template ? 1 : run.pages);
    const struct fl_frame *frame = fl_want_find(want, run.id);
    if (!frame)
        return fl_want_frames(want, &run.id, 1);
    fl_counter_add(&want->shard->stats->hits, !want->park);
    return fl_want_install_bytes(want, frame, run.slot, run.pages);
}

// A line for the first, second, fourth, eighth ... page.
static void log_dropped(const struct fl_want *want)
{
    const struct fl_vm *vm = want->vm;
    uint64_t times = fl_counter_get(&want->shard->stats->dropped);
    if ((times & (times - 1)) == 0)
        fl_log(FL_LOG_INFO,
               "event=dropped vm=%" PRIu64 " image=%s image_page=%" PRIu64 " pages=%" PRIu64
               " reason=\"the page was dropped without a remove event (was a hole punched?): it is "
               "zeros now\"",
               vm->id, fl_vm_image_name(vm), fl_layout_image_page(&vm->state->layout, want->page),
               times);
}

// It was there. Memory that is dropped without an event (a hole punched into a file that the
// guest's memory is, a truncation; anything, if the client asked for no events) is zeros for the
// guest, and the image's bytes there would be the past.
static enum fl_outcome want_resolve_dropped(struct fl_want *want)
{
    bool dropped = false;
    enum fl_install result = fl_install_dropped(want->vm, want->page, &dropped);
    want->there = result == FL_INSTALL_DONE;
    if (dropped) {
        fl_counter_add(&want->shard->stats->dropped, 1);
        fl_counter_add(&want->shard->stats->dropped_units, fl_vm_page_units(want->vm));
        log_dropped(want);
    }
    return fl_want_settle(want, result, dropped ? FL_ZEROED : FL_INSTALLED);
}

static enum fl_outcome want_resolve_once(struct fl_want *want)
{
    struct fl_vm *vm = want->vm;
    if (vm->phase == FL_VM_GONE)
        return FL_PARKED;
    if (want->park && want->park->error == -ENOSPC) // whatever is to be there: there is no memory
        return fl_want_fail(want, -ENOSPC);
    if (fl_bit_test(vm->removed, want->page) && !(vm->state->flags & FL_VM_STATE_TEMPLATE))
        return fl_want_install_zeros(want, zeros_at_once(want));
    if (fl_vm_may_be_dropped(vm, want->page))
        return want_resolve_dropped(want);
    want->shared = vm->template && fl_install_shared(vm, want->page, 1) > 0;
    if (want->shared)
        return fl_want_done(want, FL_INSTALLED);
    if (want->park && want->park->error)
        return fl_want_fail(want, want->park->error);
    return vm->page_shift == FL_PAGE_SHIFT ? want_resolve_small(want) : fl_resolve_huge(want);
}

// A frame that it wanted to wait for may have come at once: then its bytes are looked for anew.
static enum fl_outcome want_resolve(struct fl_want *want)
{
    enum fl_outcome outcome = FL_PARKED;
    do {
        want->anew = false;
        outcome = want_resolve_once(want);
    } while (want->anew);
    return outcome;
}

enum fl_outcome fl_resolve_some(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                                uint32_t pages, const struct fl_run *run, bool replayed,
                                uint32_t *ret_there)
{
    struct fl_want want = {.shard = shard,
                           .vm = vm,
                           .page = page,
                           .read_ns = shard->now,
                           .resume = fl_resolve_parked,
                           .pages = pages,
                           .run = *run,
                           .replayed = replayed};
    enum fl_outcome outcome = want_resolve(&want);
    *ret_there = want.there;
    return outcome;
}

enum fl_outcome fl_resolve_ahead(struct fl_shard *shard, struct fl_vm *vm, uint64_t page)
{
    struct fl_want want = {
        .shard = shard, .vm = vm, .page = page, .resume = fl_resolve_parked, .pages = 1};
    return want_resolve(&want);
}

void fl_resolve_parked(struct fl_shard *shard, struct fl_park *park)
{
    struct fl_want want = {.shard = shard,
                           .vm = park->vm,
                           .page = park->page,
                           .read_ns = park->read_ns,
                           .park = park,
                           .resume = fl_resolve_parked,
                           .pages = park->pages,
                           .replayed = park->replayed};
    want_resolve(&want);
}

void fl_resolve_hurry(struct fl_vm *vm, uint64_t page)
{
    struct fl_cache *cache = atomic_load(&vm->owner)->cache;
    uint64_t image_page = fl_layout_image_page(&vm->state->layout, page);
    if (vm->page_shift != FL_PAGE_SHIFT)
        fl_cache_hurry_huge(cache, vm->image, image_page);
    else if (image_page < fl_image_pages(vm->image))
        fl_cache_hurry(cache, fl_image_run(vm->image, image_page, 1).id);
}
