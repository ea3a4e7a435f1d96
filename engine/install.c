// SPDX-License-Identifier: Apache-2.0
#include "engine/install.h"

#include <errno.h>

#include "engine/bitmap.h"
#include "engine/point.h"
#include "engine/uffd.h"
#include "engine/vm.h"
#include "engine/worker.h"

// A page that is present does not prove that its waiter was woken (a lost wake-up hung 1 in 2 to 3
// million faults of another handler): wake it always.
static void present(struct fl_vm *vm, uint64_t page, uint64_t address)
{
    fl_bit_set(vm->installed, page);
    fl_uffd_wake(vm->uffd, address, fl_vm_page_bytes(vm));
}

// What the kernel's answer means, after `done` pages were filled.
static enum fl_install judge(struct fl_vm *vm, int error, uint64_t page, uint64_t done,
                             uint64_t *ret_pages)
{
    uint64_t address = fl_layout_address(&vm->state->layout, page + done);
    if (done == 1)
        fl_bit_set(vm->installed, page);
    else if (done > 1)
        fl_bits_set(vm->installed, page, done);
    *ret_pages = done;
    switch (error) {
    case 0:
        return FL_INSTALL_DONE;
    case -EEXIST:
        present(vm, page + done, address);
        *ret_pages = done + 1;
        return FL_INSTALL_DONE;
    case -ENOENT:
        // Not registered any more: whoever waits has to retry and will then do without us.
        fl_uffd_wake(vm->uffd, address, fl_vm_page_bytes(vm));
        *ret_pages = done + 1;
        return FL_INSTALL_DONE;
    case -EAGAIN:
        return done > 0 ? FL_INSTALL_DONE : FL_INSTALL_AGAIN;
    case -ENOMEM:
    case -ENOSPC:
        return done > 0 ? FL_INSTALL_DONE : FL_INSTALL_SHORT;
    case -ESRCH:
        return FL_INSTALL_GONE;
    default:
        return FL_INSTALL_FAILED;
    }
}

static void count_copied(struct fl_vm *vm, uint64_t units)
{
    fl_counter_add(&vm->state->counters.installed, units);
    fl_counter_add(&vm->owner->stats.copied_units, units);
}

static void count_zeroed(struct fl_vm *vm, uint64_t units)
{
    fl_counter_add(&vm->state->counters.zeroed, units);
    fl_counter_add(&vm->owner->stats.zeroed_units, units);
}

enum fl_install fl_install_copy(struct fl_vm *vm, uint64_t page, const void *from, uint64_t count,
                                uint64_t *ret_pages)
{
    uint64_t to = fl_layout_address(&vm->state->layout, page);
    uint64_t done = 0;
    int error = fl_uffd_copy(vm->uffd, to, from, count << vm->page_shift, &done);
    // A range that spans mappings is refused as a whole, though its pages may be registered.
    if (error == -ENOENT && count > 1 && done == 0)
        error = fl_uffd_copy(vm->uffd, to, from, fl_vm_page_bytes(vm), &done);
    FL_POINT("copied");
    count_copied(vm, done >> FL_PAGE_SHIFT);
    return judge(vm, error, page, done >> vm->page_shift, ret_pages);
}

// hugetlb has no ZEROPAGE: one page of zeros is copied.
static int zero(struct fl_vm *vm, uint64_t to, uint64_t count, uint64_t *ret_done)
{
    if (vm->page_shift == FL_PAGE_SHIFT)
        return fl_uffd_zero(vm->uffd, to, count << vm->page_shift, ret_done);
    return fl_uffd_copy(vm->uffd, to, vm->owner->zeros, fl_vm_page_bytes(vm), ret_done);
}

enum fl_install fl_install_zero(struct fl_vm *vm, uint64_t page, uint64_t count,
                                uint64_t *ret_pages)
{
    uint64_t to = fl_layout_address(&vm->state->layout, page);
    uint64_t done = 0;
    int error = zero(vm, to, count, &done);
    if (error == -ENOENT && count > 1 && done == 0)
        error = zero(vm, to, 1, &done);
    count_zeroed(vm, done >> FL_PAGE_SHIFT);
    return judge(vm, error, page, done >> vm->page_shift, ret_pages);
}

enum fl_install fl_install_poison(struct fl_vm *vm, uint64_t page)
{
    uint64_t to = fl_layout_address(&vm->state->layout, page);
    uint64_t pages = 0;
    int error = fl_uffd_poison(vm->uffd, to, fl_vm_page_bytes(vm));
    if (error == 0)
        fl_counter_add(&vm->state->counters.poisoned, fl_vm_page_units(vm));
    return judge(vm, error, page, error == 0, &pages);
}
