// SPDX-License-Identifier: Apache-2.0
#include "engine/fill.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/bitmap.h"
#include "engine/clock.h"
#include "engine/fault.h"
#include "engine/install.h"
#include "engine/log.h"
#include "engine/point.h"
#include "engine/uffd.h"
#include "engine/vm.h"
#include "engine/worker.h"

enum {
    SLICE_PAGES = 256, // 4 KiB pages of zeros in a slice; of bytes, a frame's at most
    AHEAD_PAGES = 512, // how far ahead frames are asked for
    HUGE_AT_ONCE = 4,  // huge pages in the making
};
#define PAUSE (100 * FL_NS_PER_US)
#define LONG_PAUSE (10 * FL_NS_PER_MS) // memory is short

void fl_fill_init(struct fl_fill *fill)
{
    *fill = (struct fl_fill){.goal = FL_FILL_NONE};
    CDS_INIT_LIST_HEAD(&fill->in_worker);
}

void fl_fill_begin(struct fl_worker *worker, struct fl_vm *vm, enum fl_fill_goal goal)
{
    struct fl_fill *fill = &vm->fill;
    if (fill->goal != FL_FILL_NONE && (fill->goal == goal || goal == FL_FILL_NONE))
        return;
    if (fill->goal == FL_FILL_NONE || fill->next == vm->state->layout.pages)
        fill->begun_ns = worker->now;
    fill->goal = goal;
    fill->next = 0;
    fill->ahead = 0;
    if (cds_list_empty(&fill->in_worker))
        cds_list_add_tail(&fill->in_worker, &worker->fills);
}

void fl_fill_abandon(struct fl_vm *vm)
{
    cds_list_del_init(&vm->fill.in_worker);
    if (vm->fill.wait)
        vm->fill.wait->vm = NULL;
    vm->fill.wait = NULL;
}

// The frame could not be read: so the pages that wait for it here fail, each by the VM's policy.
static void fail_page(struct fl_worker *worker, struct fl_vm *vm, int error)
{
    struct fl_fill *fill = &vm->fill;
    struct fl_park *park = NULL;
    if (!fl_park_find(vm, fill->next))
        park = fl_park_new(worker, vm, fill->next, 0, 0);
    if (park) {
        park->error = error;
        fl_resolve(worker, vm, fill->next, 0, park);
    }
    fill->next++;
}

static void frame_came(void *owner, struct fl_mail *mail)
{
    struct fl_fill_wait *wait = caa_container_of(mail, struct fl_fill_wait, waiter.mail);
    if (wait->waiter.frame)
        fl_frame_unpin(wait->waiter.frame);
    if (wait->vm) {
        wait->vm->fill.wait = NULL;
        if (wait->waiter.error)
            fail_page(owner, wait->vm, wait->waiter.error);
    }
    free(wait);
}

static void ask_ahead(struct fl_worker *worker, struct fl_vm *vm)
{
    struct fl_fill *fill = &vm->fill;
    const struct fl_layout *layout = &vm->state->layout;
    uint64_t end =
        fill->next + AHEAD_PAGES < layout->pages ? fill->next + AHEAD_PAGES : layout->pages;
    if (fill->ahead < fill->next)
        fill->ahead = fill->next;
    while (fill->ahead < end) {
        const struct fl_region *region = fl_layout_region(layout, fill->ahead);
        uint64_t left = region->first_page + (region->bytes >> layout->page_shift) - fill->ahead;
        struct fl_run run = fl_image_run(vm->image, fl_layout_image_page(layout, fill->ahead),
                                         (uint32_t)(left < FL_FRAME_PAGES ? left : FL_FRAME_PAGES));
        if (!run.zero && fl_cache_ahead(worker->cache, vm->image, &run.id, 1) == 0)
            return;
        fill->ahead += run.pages;
    }
}

static void wait_for(struct fl_worker *worker, struct fl_vm *vm, struct fl_frame_id id)
{
    struct fl_frame *frame = NULL;
    struct fl_fill_wait *wait = calloc(1, sizeof(*wait));
    if (!wait) {
        vm->fill.not_before_ns = worker->now + LONG_PAUSE;
        return;
    }
    wait->waiter.mail.deliver = frame_came;
    wait->waiter.box = &worker->mailbox;
    wait->worker = worker;
    wait->vm = vm;
    int result = fl_cache_want(worker->cache, vm->image, id, &wait->waiter, &frame);
    if (result == 0) {
        vm->fill.wait = wait;
        ask_ahead(worker, vm);
        return;
    }
    if (result == 1)
        fl_frame_unpin(frame); // it has just come: the next slice finds it
    else
        vm->fill.not_before_ns = worker->now + LONG_PAUSE;
    free(wait);
}

static void advance(struct fl_worker *worker, struct fl_vm *vm, enum fl_install result,
                    uint64_t pages)
{
    struct fl_fill *fill = &vm->fill;
    switch (result) {
    case FL_INSTALL_DONE:
        fill->next += pages;
        break;
    case FL_INSTALL_AGAIN:
        fill->not_before_ns = worker->now + PAUSE;
        break;
    case FL_INSTALL_SHORT:
        fill->not_before_ns = worker->now + LONG_PAUSE;
        break;
    case FL_INSTALL_GONE:
        fl_worker_vm_gone(worker, vm);
        break;
    case FL_INSTALL_FAILED:
        fail_page(worker, vm, -EINVAL);
        break;
    }
}

// [fill->next, end) is neither there nor removed, and within one region.
static void fill_small(struct fl_worker *worker, struct fl_vm *vm, uint64_t end)
{
    struct fl_fill *fill = &vm->fill;
    uint64_t pages = 0;
    uint64_t image_page = fl_layout_image_page(&vm->state->layout, fill->next);
    struct fl_run run = fl_image_run(vm->image, image_page, (uint32_t)(end - fill->next));
    if (run.zero && fill->goal == FL_FILL_NONZERO) {
        fill->next += run.pages;
        return;
    }
    if (run.zero) {
        enum fl_install result = fl_install_zero(vm, fill->next, run.pages, &pages);
        advance(worker, vm, result, pages);
        return;
    }
    const struct fl_frame *frame = fl_cache_lookup(worker->cache, run.id);
    if (!frame) {
        wait_for(worker, vm, run.id);
        return;
    }
    const uint8_t *from = fl_frame_data(frame) + ((size_t)run.slot << FL_PAGE_SHIFT);
    enum fl_install result = fl_install_copy(vm, fill->next, from, run.pages, &pages);
    advance(worker, vm, result, pages);
}

static bool huge_is_zero(struct fl_vm *vm, uint64_t page)
{
    uint64_t at = fl_layout_image_page(&vm->state->layout, page);
    uint64_t end = at + fl_vm_page_units(vm);
    uint64_t image_end = fl_image_pages(vm->image);
    end = end < image_end ? end : image_end;
    while (at < end) {
        struct fl_run run = fl_image_run(vm->image, at, (uint32_t)(end - at));
        if (!run.zero)
            return false;
        at += run.pages;
    }
    return true;
}

// The path of a fault does it, without a fault.
static void fill_huge(struct fl_worker *worker, struct fl_vm *vm)
{
    struct fl_fill *fill = &vm->fill;
    bool skip = fill->goal == FL_FILL_NONZERO && huge_is_zero(vm, fill->next);
    if (!skip && !fl_park_find(vm, fill->next))
        fl_resolve(worker, vm, fill->next, 0, NULL);
    fill->next++;
}

static void report(struct fl_worker *worker, struct fl_vm *vm)
{
    uint64_t ns = fl_now() - vm->fill.begun_ns;
    fl_log(FL_LOG_INFO, "event=filled vm=%" PRIu64 " image=%s us=%" PRIu64, vm->id,
           vm->state->image, ns / FL_NS_PER_US);
    if (worker->options->filled && vm->phase == FL_VM_SERVING)
        worker->options->filled(vm->id, ns);
}

// The VM goes on without us: nothing is missing that would not be zeros.
static void unregister(struct fl_vm *vm)
{
    const struct fl_layout *layout = &vm->state->layout;
    for (uint32_t i = 0; i < layout->regions; i++) {
        fl_uffd_unregister(vm->uffd, layout->region[i].base, layout->region[i].bytes);
        FL_POINT("unregistered");
    }
    vm->fill.unregistered = true;
    vm->state->flags |= FL_VM_STATE_RELEASED;
}

void fl_fill_go_on_releasing(struct fl_worker *worker, struct fl_vm *vm)
{
    vm->phase = FL_VM_RELEASING;
    vm->fill.unregistered = true;
    if (cds_list_empty(&vm->fill.in_worker))
        cds_list_add_tail(&vm->fill.in_worker, &worker->fills);
}

// A REMOVE that began before we unregistered still waits for its event to be read: leaving earlier
// would leave its thread in madvise() for ever, as the VMM holds the userfaultfd too.
static void let_go(struct fl_worker *worker, struct fl_vm *vm)
{
    while (fl_inbox_turn(worker, vm)) {
    }
    if (fl_uffd_removing(vm->uffd)) {
        vm->fill.not_before_ns = worker->now + PAUSE;
        return;
    }
    cds_list_del_init(&vm->fill.in_worker);
    FL_POINT("released");
    fl_log(FL_LOG_INFO, "event=release vm=%" PRIu64 " image=%s", vm->id, vm->state->image);
    fl_worker_vm_gone(worker, vm);
}

static void finish(struct fl_worker *worker, struct fl_vm *vm)
{
    report(worker, vm);
    if (vm->phase == FL_VM_RELEASING) {
        unregister(vm);
        let_go(worker, vm);
    } else {
        cds_list_del_init(&vm->fill.in_worker);
    }
}

static bool slice(struct fl_worker *worker, struct fl_vm *vm)
{
    struct fl_fill *fill = &vm->fill;
    const struct fl_layout *layout = &vm->state->layout;
    bool huge = vm->page_shift != FL_PAGE_SHIFT;
    if (fill->wait || fill->not_before_ns > worker->now ||
        (huge && vm->parks.count >= HUGE_AT_ONCE))
        return false;
    if (fill->unregistered) {
        let_go(worker, vm);
        return true;
    }
    fill->next = fl_bits_next_clear(vm->removed, vm->installed, fill->next, layout->pages);
    if (fill->next == layout->pages) {
        if (vm->parks.count > 0) // some of them may be ours
            return false;
        finish(worker, vm);
        return true;
    }
    if (huge) {
        fill_huge(worker, vm);
        return true;
    }
    const struct fl_region *region = fl_layout_region(layout, fill->next);
    uint64_t end = region->first_page + (region->bytes >> layout->page_shift);
    end = end < fill->next + SLICE_PAGES ? end : fill->next + SLICE_PAGES;
    fill_small(worker, vm, fl_bits_next_set(vm->removed, vm->installed, fill->next, end));
    return true;
}

bool fl_fill_run(struct fl_worker *worker)
{
    struct fl_fill *fill;
    struct fl_fill *next;
    cds_list_for_each_entry_safe(fill, next, &worker->fills, in_worker)
    {
        struct fl_vm *vm = caa_container_of(fill, struct fl_vm, fill);
        if (vm->phase == FL_VM_GONE || !slice(worker, vm))
            continue;
        if (!cds_list_empty(&fill->in_worker)) { // the others' turn
            cds_list_del(&fill->in_worker);
            cds_list_add_tail(&fill->in_worker, &worker->fills);
        }
        return true;
    }
    return false;
}

uint64_t fl_fill_next_due(const struct fl_worker *worker)
{
    uint64_t due = FL_NEVER;
    struct fl_fill *fill;
    cds_list_for_each_entry(fill, &worker->fills, in_worker)
    {
        if (!fill->wait && fill->not_before_ns > worker->now && fill->not_before_ns < due)
            due = fill->not_before_ns;
    }
    return due;
}
