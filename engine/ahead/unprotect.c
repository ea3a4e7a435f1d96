// SPDX-License-Identifier: Apache-2.0
#include "engine/ahead/unprotect.h"

#include <errno.h>

#include "engine/ahead/collapse.h"
#include "engine/base/bitmap.h"
#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/serve/task.h"
#include "engine/serve/vm_call.h"
#include "engine/vm/capture_state.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// Of 4 KiB, and of 2 MiB: what one call takes is 0.1 to 0.3 ms.
enum { MOST_SMALL = 512, MOST_HUGE = 64 };

static bool unprotect_slice(struct fl_shard *shard, struct fl_vm *vm);

static uint64_t most_pages(const struct fl_vm *vm)
{
    return vm->page_shift == FL_PAGE_SHIFT ? MOST_SMALL : MOST_HUGE;
}

void fl_unprotect_init(struct fl_vm *vm)
{
    vm->unprotect = (struct fl_unprotect){.runs = false};
    fl_task_init(&vm->unprotect.task, vm, unprotect_slice);
}

void fl_unprotect_begin(struct fl_shard *shard, struct fl_vm *vm,
                        void (*over)(struct fl_shard *shard, struct fl_vm *vm))
{
    struct fl_unprotect *unprotect = &vm->unprotect;
    unprotect->runs = true;
    unprotect->next = 0;
    unprotect->most = most_pages(vm);
    unprotect->over = over;
    unprotect->task.not_before_ns = 0;
    fl_task_start(shard, &unprotect->task);
}

void fl_unprotect_suspend(struct fl_vm *vm)
{
    fl_task_end(&vm->unprotect.task);
}

void fl_unprotect_resume(struct fl_shard *shard, struct fl_vm *vm)
{
    if (vm->unprotect.runs)
        fl_task_start(shard, &vm->unprotect.task);
}

void fl_unprotect_end(struct fl_vm *vm)
{
    vm->unprotect.runs = false;
    fl_task_end(&vm->unprotect.task);
}

void fl_unprotect_succeed(struct fl_shard *shard, struct fl_vm *vm)
{
    if (fl_vm_filling(vm->state)->protected && !vm->capture && !vm->unprotect.runs)
        fl_unprotect_begin(shard, vm, NULL);
}

static void unprotect_finish(struct fl_shard *shard, struct fl_vm *vm)
{
    void (*over)(struct fl_shard * shard, struct fl_vm * vm) = vm->unprotect.over;
    fl_vm_filling(vm->state)->protected = 0;
    FL_CRASH_POINT("unprotected");
    fl_unprotect_end(vm);
    fl_collapse_again(shard, vm);
    if (over)
        over(shard, vm);
}

// What is refused as a whole may be protected in parts: a mapping ends in it, or it is not
// registered any more.
static void unprotect_advance(struct fl_shard *shard, struct fl_vm *vm, uint64_t pages, int error)
{
    struct fl_unprotect *unprotect = &vm->unprotect;
    if (error == -EAGAIN) {
        fl_task_pause(shard, &unprotect->task);
    } else if (error == -ENOMEM && fl_vm_alive(vm)) {
        fl_task_pause_long(shard, &unprotect->task);
    } else if (error == -ESRCH || error == -ENOMEM) { // all has gone
        unprotect->next = vm->state->layout.pages;
    } else if (error && pages > 1) {
        unprotect->most = pages / 2;
    } else {
        unprotect->next += pages;
        unprotect->most =
            unprotect->most * 2 < most_pages(vm) ? unprotect->most * 2 : most_pages(vm);
    }
}

// Where a capture knows that none is protected, there is nothing to do. Of a page of 2 MiB that was
// protected when the guest gave it back the kernel keeps the protection.
static uint64_t next_protected(const struct fl_vm *vm, uint64_t page)
{
    const struct fl_capture *capture = vm->capture;
    uint64_t end = vm->state->layout.pages;
    return capture && !capture->moved && vm->page_shift == FL_PAGE_SHIFT
               ? fl_bits_next_clear(capture->unarmed, capture->unarmed, page, end)
               : page;
}

static bool unprotect_slice(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_unprotect *unprotect = &vm->unprotect;
    const struct fl_layout *layout = &vm->state->layout;
    if (unprotect->task.not_before_ns > shard->now)
        return false;
    unprotect->next = next_protected(vm, unprotect->next);
    if (unprotect->next >= layout->pages) {
        unprotect_finish(shard, vm);
        return true;
    }
    const struct fl_region *region = fl_layout_region(layout, unprotect->next);
    uint64_t left = region->first_page + (region->bytes >> layout->page_shift) - unprotect->next;
    uint64_t pages = left < unprotect->most ? left : unprotect->most;
    int error =
        fl_vm_unprotect(vm, fl_layout_address(layout, unprotect->next), pages << vm->page_shift);
    unprotect_advance(shard, vm, pages, error);
    return true;
}
