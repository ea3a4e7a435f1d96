// SPDX-License-Identifier: Apache-2.0
//
// Copying what a capture has certain: in turn, and what a thread waits for before that.
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "engine/ahead/capture.h"
#include "engine/ahead/capture_internal.h"
#include "engine/base/bitmap.h"
#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/serve/task.h"
#include "engine/serve/vm_call.h"
#include "engine/vm/capture_pages.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// WINDOW: what one look passes of memory that is not there. AHEAD: what the buffer may hold.
enum {
    BOUNCE_PAGES = FL_CAPTURE_BOUNCE >> FL_PAGE_SHIFT,
    WINDOW = 32768,
    LOOKS = 4,
    RUNS = 8,
    AHEAD_PAGES = 16384
};
#define FULL_PAUSE (FL_NS_PER_MS / 2)

// --- bytes ---

// Counted is what the guest's pages cost; `consumed` is the reader's, and may say anything.
static void count_copied(struct fl_capture *capture, uint64_t units, enum fl_capture_by by)
{
    atomic_fetch_add_explicit(by == FL_CAPTURE_BY_FAULT ? &capture->board->by_fault
                                                        : &capture->board->by_sweep,
                              units, memory_order_relaxed);
}

static uint64_t units_copied(const struct fl_capture *capture)
{
    const struct fl_capture_board *board = capture->board;
    return atomic_load(&board->by_sweep) + atomic_load(&board->by_fault);
}

static int write_buffer(const struct fl_capture *capture, uint64_t image_page, size_t bytes)
{
    size_t done = 0;
    off_t at = (off_t)(image_page << FL_PAGE_SHIFT);
    while (done < bytes) {
        ssize_t put =
            pwrite(capture->buffer_fd, capture->bounce + done, bytes - done, at + (off_t)done);
        if (put <= 0 && errno != EINTR)
            return put < 0 ? -errno : -EIO;
        done += put > 0 ? (size_t)put : 0;
    }
    return 0;
}

// A part of the pages, in 4 KiB from the beginning of `page` on.
static bool move_bytes(struct fl_vm *vm, uint64_t page, uint64_t unit, uint64_t units)
{
    struct fl_capture *capture = vm->capture;
    const struct fl_layout *layout = &vm->state->layout;
    size_t bytes = units << FL_PAGE_SHIFT;
    int error = fl_vm_read(vm, fl_layout_address(layout, page) + (unit << FL_PAGE_SHIFT),
                           capture->bounce, bytes);
    if (error) {
        fl_capture_fail(capture, error, "its memory cannot be read: %s", strerror(-error));
        return false;
    }
    error = write_buffer(capture, fl_layout_image_page(layout, page) + unit, bytes);
    if (error)
        fl_capture_fail(capture, error, "its pages cannot be kept in memory: %s", strerror(-error));
    return !error;
}

// A page of 2 MiB in parts: the first that are copied stay so, as it is protected.
static bool copy_huge(struct fl_vm *vm, uint64_t page, enum fl_capture_by by)
{
    struct fl_capture *capture = vm->capture;
    uint64_t units = fl_vm_page_units(vm);
    if (capture->part_of != page)
        capture->part = 0;
    capture->part_of = page;
    while (capture->part < units) {
        uint64_t left = units - capture->part;
        uint64_t now = left < BOUNCE_PAGES ? left : BOUNCE_PAGES;
        if (!move_bytes(vm, page, capture->part, now))
            return false;
        capture->part += now;
    }
    capture->part = 0;
    count_copied(capture, units, by);
    return true;
}

// Pages that are there. How many were copied; 0: it fails.
static uint64_t copy_data(struct fl_vm *vm, uint64_t page, uint64_t count, enum fl_capture_by by)
{
    bool huge = vm->page_shift != FL_PAGE_SHIFT;
    uint64_t most = huge ? 1 : BOUNCE_PAGES;
    count = count < most ? count : most;
    if (huge ? !copy_huge(vm, page, by) : !move_bytes(vm, page, 0, count))
        return 0;
    if (!huge)
        count_copied(vm->capture, count, by);
    FL_CRASH_POINT("capture_copied");
    fl_capture_set_done(vm, page, count, FL_CAPTURED_DATA);
    return count;
}

// --- pages ---

static void let_go(struct fl_vm *vm, uint64_t page, uint64_t count)
{
    struct fl_capture *capture = vm->capture;
    if (!fl_capture_is_paused(capture) && !(capture->flags & FL_CAPTURE_KEEP_ARMED))
        fl_capture_unprotect(vm, page, count);
}

// They are not there. Of 4 KiB no trace of the protection is left.
static void pass_absent(struct fl_vm *vm, uint64_t page, uint64_t count)
{
    if (count == 0)
        return;
    fl_capture_set_done(vm, page, count, FL_CAPTURED_ABSENT);
    if (vm->page_shift != FL_PAGE_SHIFT)
        let_go(vm, page, count);
    else if (!(vm->capture->flags & FL_CAPTURE_KEEP_ARMED))
        fl_capture_set_unarmed(vm->capture, page, count);
}

// A page that was certain, and that nothing protects: somebody may have written to it.
static void fail_torn(struct fl_capture *capture, const struct fl_presence_kind *kind)
{
    fl_capture_fail(capture, -EIO, "page 0x%llx was not write-protected",
                    (unsigned long long)kind->start);
}

// A run of one kind. How many pages are done with; 0: it fails.
static uint64_t copy_kind(struct fl_vm *vm, uint64_t page, const struct fl_presence_kind *kind,
                          enum fl_capture_by by)
{
    uint64_t count = (kind->end - kind->start) >> vm->page_shift;
    if (!fl_capture_is_paused(vm->capture) && !kind->protected) {
        fail_torn(vm->capture, kind);
        return 0;
    }
    count = copy_data(vm, page, count, by);
    if (count > 0 && by == FL_CAPTURE_BY_SWEEP)
        let_go(vm, page, count);
    return count;
}

// What one look has found of the pages from `page` on. The first page that is not done with.
static uint64_t act_on_look(struct fl_vm *vm, uint64_t page, const struct fl_presence_look *look,
                            enum fl_capture_by by)
{
    uint64_t start = look->start;
    for (size_t i = 0; i < look->count && !vm->capture->error; i++) {
        uint64_t at = page + ((look->kind[i].start - start) >> vm->page_shift);
        uint64_t count = (look->kind[i].end - look->kind[i].start) >> vm->page_shift;
        pass_absent(vm, page, at - page);
        uint64_t copied = copy_kind(vm, at, &look->kind[i], by);
        page = at + copied;
        start = look->kind[i].start + (copied << vm->page_shift);
        if (copied < count)
            return page;
    }
    if (vm->capture->error)
        return page;
    uint64_t rest = (look->looked - start) >> vm->page_shift;
    pass_absent(vm, page, rest);
    return page + rest;
}

bool fl_capture_copy(struct fl_vm *vm, uint64_t *page, uint64_t end, enum fl_capture_by by)
{
    struct fl_capture *capture = vm->capture;
    const struct fl_layout *layout = &vm->state->layout;
    uint64_t most = units_copied(capture) + BOUNCE_PAGES;
    for (unsigned looks = 0; looks < LOOKS && !capture->error; looks++) {
        *page = fl_bits_next_clear(capture->done, capture->done, *page, end);
        if (*page == end)
            break;
        const struct fl_region *region = fl_layout_region(layout, *page);
        uint64_t to = region->first_page + (region->bytes >> layout->page_shift);
        to = to < end ? to : end;
        to = to < *page + WINDOW ? to : *page + WINDOW;
        to = fl_bits_next_set(capture->done, capture->done, *page, to);
        uint64_t units = fl_vm_page_units(vm);
        struct fl_presence_look look = {.start = fl_layout_address(layout, *page),
                                        .page_shift = layout->page_shift,
                                        .no_files = vm->template != NULL,
                                        .most = units > BOUNCE_PAGES ? units : BOUNCE_PAGES};
        look.end = look.start + ((to - *page) << layout->page_shift);
        int error = fl_vm_look(vm, &look);
        if (error)
            fl_capture_fail(capture, error, "its memory cannot be looked at: %s", strerror(-error));
        else
            *page = act_on_look(vm, *page, &look, by);
        if (units_copied(capture) >= most)
            break;
    }
    return !capture->error;
}

// --- in turn ---

// The reader is behind. What it says it has read is no more than a wish.
static bool buffer_is_full(const struct fl_capture *capture)
{
    uint64_t copied = units_copied(capture);
    uint64_t consumed = atomic_load(&capture->board->consumed);
    return copied > AHEAD_PAGES && consumed < copied - AHEAD_PAGES;
}

// What was done before the sweep came to it is told to the reader: it is as in the parent, and
// nothing is told twice.
static void tell_done(struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    uint64_t first =
        fl_bits_next_clear(capture->done, capture->done, capture->next, capture->pages);
    while (capture->next < first) {
        const struct fl_region *region = fl_layout_region(&vm->state->layout, capture->next);
        uint64_t end = region->first_page + (region->bytes >> vm->page_shift);
        end = end < first ? end : first;
        fl_capture_set_done(vm, capture->next, end - capture->next, FL_CAPTURED_PARENT);
        capture->next = end;
    }
}

bool fl_capture_sweep(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    tell_done(vm);
    if (capture->next == capture->pages) {
        fl_capture_copied(shard, vm);
        return true;
    }
    if (buffer_is_full(capture)) {
        capture->task.not_before_ns = shard->now + FULL_PAUSE;
        return false;
    }
    uint64_t most = units_copied(capture) + BOUNCE_PAGES;
    for (unsigned runs = 0; runs < RUNS && units_copied(capture) < most; runs++) {
        uint64_t end =
            fl_bits_next_set(capture->done, capture->done, capture->next, capture->pages);
        if (!fl_capture_copy(vm, &capture->next, end, FL_CAPTURE_BY_SWEEP))
            break;
        tell_done(vm);
    }
    return true;
}

// --- for a thread that waits ---

void fl_capture_fault(struct fl_shard *shard, struct fl_vm *vm, uint64_t page)
{
    struct fl_capture *capture = vm->capture;
    uint64_t at = page;
    (void)shard;
    atomic_fetch_add_explicit(&capture->board->write_faults, 1, memory_order_relaxed);
    if (fl_capture_holds(capture) && !fl_bit_test(capture->done, page))
        fl_capture_copy(vm, &at, page + 1, FL_CAPTURE_BY_FAULT);
    fl_bit_set(capture->changed, page);
    fl_capture_unprotect(vm, page, 1);
}
