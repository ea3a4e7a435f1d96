// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/install.h"

#include <errno.h>
#include <stdatomic.h>

#include "engine/base/bitmap.h"
#include "engine/base/crash_point.h"
#include "engine/base/probe.h"
#include "engine/host/uffd.h"
#include "engine/serve/shortage.h"
#include "engine/serve/vm_call.h"
#include "engine/template/template.h"
#include "engine/vm/capture_pages.h"
#include "engine/vm/history.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// Pages of zeros that are no shared page: not more than a fault may wait for.
enum { OWN_AT_ONCE = 16 };

// A page that is present does not prove that its waiter was woken (a lost wake-up hung 1 in 2 to 3
// million faults of another handler): wake it always.
static void note_present(struct fl_vm *vm, uint64_t page, uint64_t address)
{
    fl_bit_set(vm->installed, page);
    fl_uffd_wake(vm->uffd, address, fl_vm_page_bytes(vm));
}

bool fl_install_sees(const struct fl_vm *vm)
{
    // A kernel that cannot poison (before 6.6) is older than the lie about pages of 2 MiB.
    return vm->page_shift == FL_PAGE_SHIFT || vm->presence.pagemap >= 0 ||
           !fl_uffd_can_poison(vm->uffd);
}

static enum fl_install note_shortage(struct fl_vm *vm)
{
    fl_shortage_begin(vm);
    return FL_INSTALL_SHORT;
}

// It cannot be seen whether it is there and its waiter sleeps, or there is no memory for it. The
// waiter is woken, and faults again if it must; the page is tried again in any case.
static enum fl_install judge_unseen(struct fl_vm *vm, uint64_t address)
{
    fl_uffd_wake(vm->uffd, address, fl_vm_page_bytes(vm));
    return fl_shortage_of_huge_pages() ? note_shortage(vm) : FL_INSTALL_SHORT;
}

// EEXIST for a page of 2 MiB may mean that none is free (Linux 6.18; findings/hugetlb_eexist.sh):
// the pagemap knows.
static enum fl_install judge_exists(struct fl_vm *vm, uint64_t page)
{
    uint64_t address = fl_layout_address(&vm->state->layout, page);
    int result = 0;
    if (vm->page_shift != FL_PAGE_SHIFT)
        result = fl_vm_any_absent(vm, address, fl_vm_page_bytes(vm));
    if (result > 0)
        return note_shortage(vm);
    // Also where it can be seen at other times, but memory for the look is short as well.
    if (result < 0 && (!fl_install_sees(vm) || (vm->presence.pagemap >= 0 && fl_vm_alive(vm))))
        return judge_unseen(vm, address);
    note_present(vm, page, address);
    return FL_INSTALL_DONE;
}

// What the kernel's answer means, after `done` pages were filled.
static enum fl_install judge_answer(struct fl_vm *vm, int error, uint64_t page, uint64_t done,
                                    uint64_t *ret_pages)
{
    uint64_t address = fl_layout_address(&vm->state->layout, page + done);
    enum fl_install result;
    if (done > 0 && vm->capture) // before the bits are set: it looks at what was there before
        fl_capture_installed(vm, page, done);
    if (done == 1)
        fl_bit_set(vm->installed, page);
    else if (done > 1)
        fl_bits_set(vm->installed, page, done);
    if (done > 0)
        fl_shortage_end(vm);
    *ret_pages = done;
    switch (error) {
    case 0:
        return FL_INSTALL_DONE;
    case -EEXIST:
        if (done > 0 && vm->page_shift != FL_PAGE_SHIFT)
            return FL_INSTALL_DONE;
        result = judge_exists(vm, page + done);
        *ret_pages += result == FL_INSTALL_DONE;
        return result;
    case -ENOENT:
        // Not registered any more: a thread that waits has to retry, and will then do without us.
        fl_uffd_wake(vm->uffd, address, fl_vm_page_bytes(vm));
        *ret_pages = done + 1;
        return FL_INSTALL_DONE;
    case -EAGAIN:
        return done > 0 ? FL_INSTALL_DONE : FL_INSTALL_AGAIN;
    case -ENOMEM:
    case -ENOSPC:
        return done > 0 ? FL_INSTALL_DONE : note_shortage(vm);
    case -ESRCH:
        return FL_INSTALL_GONE;
    default:
        return FL_INSTALL_FAILED;
    }
}

static void count_copied(struct fl_vm *vm, uint64_t units)
{
    fl_counter_add(&vm->state->counters.installed, units);
    fl_counter_add(&atomic_load(&vm->owner)->stats->copied_units, units);
}

static void count_zeroed(struct fl_vm *vm, uint64_t units)
{
    fl_counter_add(&vm->state->counters.zeroed, units);
    fl_counter_add(&atomic_load(&vm->owner)->stats->zeroed_units, units);
}

void fl_install_wake(struct fl_vm *vm, uint64_t page, uint64_t count)
{
    FL_PROBE(wake, vm->id, fl_layout_image_page(&vm->state->layout, page),
             count * fl_vm_page_units(vm));
    fl_uffd_wake(vm->uffd, fl_layout_address(&vm->state->layout, page), count << vm->page_shift);
}

// --- into the template ---

// The page is in the file: the VM's retry finds it.
static void template_let_see(struct fl_vm *vm, uint64_t page, uint64_t count)
{
    fl_bits_set(vm->installed, page, count);
    FL_CRASH_POINT("template_unwoken");
    fl_install_wake(vm, page, count);
}

// A second fault on a page that the template has means that the VM did not map the template there:
// it gets a private copy, or it would fault for ever.
static bool vm_was_told(const struct fl_vm *vm, uint64_t page)
{
    return fl_bit_test(vm->installed, page);
}

uint64_t fl_install_shared(struct fl_vm *vm, uint64_t page, uint64_t count)
{
    uint64_t first = fl_layout_image_page(&vm->state->layout, page);
    uint64_t there = vm_was_told(vm, page) ? 0 : fl_template_there(vm->template, first, count);
    if (there > 0)
        template_let_see(vm, page, there);
    return there;
}

// How many pages are there for all now.
static uint64_t template_share(struct fl_vm *vm, uint64_t page, const void *from, uint64_t count)
{
    if (!vm->template || vm_was_told(vm, page))
        return 0;
    uint64_t first = fl_layout_image_page(&vm->state->layout, page);
    uint64_t done = fl_template_fill(vm->template, first, from, count);
    if (done > 0)
        template_let_see(vm, page, done);
    return done;
}

// Zeros that are the image's, and that a fault asked for: the host pays for them once, and no other
// VM asks again. What is only filled ahead costs nothing in the VM itself.
static uint64_t template_share_zero(struct fl_vm *vm, uint64_t page, uint64_t count)
{
    if (!vm->template || count != 1)
        return 0;
    uint64_t first = fl_layout_image_page(&vm->state->layout, page);
    bool zero = first < fl_image_pages(vm->image) && fl_image_run(vm->image, first, 1).zero;
    return zero ? template_share(vm, page, NULL, 1) : 0;
}

// --- into the VM ---

// Of memory that can be dropped without an event the bit of each page that was there must be set,
// or its fault is taken for the first one. A capture must know of each page that it has not
// protected, and a later one that a page which was given back has come anew, and is not about to
// go. An end in between leaves the note.
static void filling_begin(struct fl_vm *vm, uint64_t page, uint64_t count)
{
    struct fl_vm_filling *filling = fl_vm_filling(vm->state);
    if ((vm->state->flags & FL_VM_STATE_TEMPLATE) && !vm->capture)
        return;
    filling->page = page;
    atomic_signal_fence(memory_order_seq_cst);
    filling->pages = count;
    atomic_signal_fence(memory_order_seq_cst);
}

static enum fl_install filling_end(struct fl_vm *vm, enum fl_install result)
{
    atomic_signal_fence(memory_order_seq_cst);
    fl_vm_filling(vm->state)->pages = 0;
    return result;
}

void fl_install_succeed(struct fl_vm *vm)
{
    struct fl_vm_filling *filling = fl_vm_filling(vm->state);
    uint64_t pages = vm->state->layout.pages;
    uint64_t first = filling->page < pages ? filling->page : pages;
    uint64_t count = filling->pages < pages - first ? filling->pages : pages - first;
    // By a thread of this engine, which is the one that goes on with the VM.
    uint64_t filled = fl_shard_call(vm->owner)->filled >> vm->page_shift;
    if (vm->capture && filled > 0 && filled <= count)
        fl_capture_installed(vm, first, filled);
    for (uint64_t page = first; page < first + count; page++) {
        uint64_t address = fl_layout_address(&vm->state->layout, page);
        if (fl_vm_any_absent(vm, address, fl_vm_page_bytes(vm)) != 0)
            continue;
        fl_bit_set(vm->installed, page);
        if (fl_vm_history(vm)) // what its last thread has wanted it for went with that
            fl_vm_history_came(fl_vm_history(vm), page, 1, FL_CAME_OTHER);
    }
    filling->pages = 0;
}

enum fl_install fl_install_copy(struct fl_vm *vm, uint64_t page, const void *from, uint64_t count,
                                enum fl_wake wake, uint64_t *ret_pages)
{
    *ret_pages = template_share(vm, page, from, count);
    if (*ret_pages > 0) {
        count_copied(vm, *ret_pages);
        return FL_INSTALL_DONE;
    }
    uint64_t to = fl_layout_address(&vm->state->layout, page);
    uint64_t done = 0;
    bool now = wake == FL_WAKE;
    filling_begin(vm, page, count);
    int error = fl_vm_copy(vm, to, from, count << vm->page_shift, now, &done);
    // A range that spans mappings is refused as a whole, though its pages may be registered.
    if (error == -ENOENT && count > 1 && done == 0)
        error = fl_vm_copy(vm, to, from, fl_vm_page_bytes(vm), now, &done);
    FL_CRASH_POINT("copied");
    FL_PROBE(install, vm->id, fl_layout_image_page(&vm->state->layout, page), done >> FL_PAGE_SHIFT,
             0, error);
    count_copied(vm, done >> FL_PAGE_SHIFT);
    return filling_end(vm, judge_answer(vm, error, page, done >> vm->page_shift, ret_pages));
}

// `own`: no shared page of zeros, but at most 2 MiB of its own. hugetlb has no other: one page of
// zeros is copied.
static int vm_put_zeros(struct fl_vm *vm, uint64_t to, uint64_t count, bool own, bool wake,
                        uint64_t *ret_done)
{
    if (!own)
        return fl_vm_zero(vm, to, count << vm->page_shift, wake, ret_done);
    if (vm->page_shift != FL_PAGE_SHIFT)
        count = 1;
    return fl_vm_copy(vm, to, atomic_load(&vm->owner)->zeros, count << vm->page_shift, wake,
                      ret_done);
}

// Into the VM alone.
static enum fl_install install_zeros(struct fl_vm *vm, uint64_t page, uint64_t count, bool wake,
                                     bool ahead, uint64_t *ret_pages)
{
    uint64_t to = fl_layout_address(&vm->state->layout, page);
    uint64_t done = 0;
    bool own = vm->page_shift != FL_PAGE_SHIFT;
    if (vm->collapse.ranges.range)
        count = fl_huge_ranges_span(&vm->collapse.ranges, &vm->state->layout, page, count, &own);
    if (own && count > OWN_AT_ONCE)
        count = OWN_AT_ONCE;
    filling_begin(vm, page, count);
    int error = vm_put_zeros(vm, to, count, own, wake, &done);
    if (error == -ENOENT && count > 1 && done == 0)
        error = vm_put_zeros(vm, to, 1, own, wake, &done);
    FL_CRASH_POINT("zeroed");
    FL_PROBE(install, vm->id, fl_layout_image_page(&vm->state->layout, page), done >> FL_PAGE_SHIFT,
             1, error);
    count_zeroed(vm, done >> FL_PAGE_SHIFT);
    if (ahead && error == -ENOMEM)
        error = -EAGAIN;
    return filling_end(vm, judge_answer(vm, error, page, done >> vm->page_shift, ret_pages));
}

enum fl_install fl_install_zero(struct fl_vm *vm, uint64_t page, uint64_t count, enum fl_wake wake,
                                uint64_t *ret_pages)
{
    *ret_pages = template_share_zero(vm, page, count);
    if (*ret_pages > 0) {
        count_zeroed(vm, *ret_pages);
        return FL_INSTALL_DONE;
    }
    return install_zeros(vm, page, count, wake == FL_WAKE, false, ret_pages);
}

enum fl_install fl_install_zero_ahead(struct fl_vm *vm, uint64_t page, uint64_t count,
                                      uint64_t *ret_pages)
{
    return install_zeros(vm, page, count, true, true, ret_pages);
}

// Whether the page is there, or is poisoned: a COPY would take the poison away (Linux 6.6 to 6.18),
// and so would a ZEROPAGE of shared memory (seen with 6.18; of private memory it does not). Where a
// page of 2 MiB cannot be seen, another poison is refused if so; one of 4 KiB may be in the file
// alone, and would be hidden by that.
static bool is_kept(struct fl_vm *vm, uint64_t to)
{
    uint64_t bytes = fl_vm_page_bytes(vm);
    int result = fl_vm_any_absent(vm, to, bytes);
    if (result < 0 && vm->page_shift != FL_PAGE_SHIFT)
        return fl_vm_poison(vm, to, bytes) == -EEXIST;
    return result == 0;
}

// That a page of 4 KiB is in swap, or in a shared file alone, the kernel itself says: it puts none
// where one is.
enum fl_install fl_install_dropped(struct fl_vm *vm, uint64_t page, bool *ret_dropped)
{
    uint64_t pages = 0;
    uint64_t done = 0;
    uint64_t to = fl_layout_address(&vm->state->layout, page);
    *ret_dropped = false;
    if (is_kept(vm, to)) {
        note_present(vm, page, to);
        return FL_INSTALL_DONE;
    }
    filling_begin(vm, page, 1);
    int error = vm_put_zeros(vm, to, 1, vm->page_shift != FL_PAGE_SHIFT, true, &done);
    *ret_dropped = done > 0;
    count_zeroed(vm, done >> FL_PAGE_SHIFT);
    return filling_end(vm, judge_answer(vm, error, page, done >> vm->page_shift, &pages));
}

enum fl_install fl_install_poison(struct fl_vm *vm, uint64_t page, bool *ret_there)
{
    uint64_t to = fl_layout_address(&vm->state->layout, page);
    uint64_t pages = 0;
    int error = fl_vm_poison(vm, to, fl_vm_page_bytes(vm));
    *ret_there = error == -EEXIST;
    if (error == -EEXIST) {
        note_present(vm, page, to);
        return FL_INSTALL_DONE;
    }
    if (error == 0) {
        if (vm->capture)
            fl_capture_installed(vm, page, 1);
        fl_bit_set(vm->installed, page);
        fl_counter_add(&vm->state->counters.poisoned, fl_vm_page_units(vm));
    }
    return judge_answer(vm, error, page, 0, &pages);
}
