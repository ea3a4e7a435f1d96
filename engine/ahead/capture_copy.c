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

// WINDOW: what one look passes of memory that is not there. LET_GO: un-protected in one call.
enum {
    BOUNCE_PAGES = FL_CAPTURE_BOUNCE >> FL_PAGE_SHIFT,
    WINDOW = 32768,
    LOOKS = 4,
    RUNS = 8,
    LET_GO = 512
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

static int write_buffer(const struct fl_capture *capture, const uint8_t *from, uint64_t image_page,
                        size_t bytes)
{
    size_t done = 0;
    off_t at = (off_t)(image_page << FL_PAGE_SHIFT);
    while (done < bytes) {
        ssize_t put = pwrite(capture->buffer_fd, from + done, bytes - done, at + (off_t)done);
        if (put <= 0 && errno != EINTR)
            return put < 0 ? -errno : -EIO;
        done += put > 0 ? (size_t)put : 0;
    }
    return 0;
}

// Runs of memory that is there, no more than fits. `page` has the address `start`; of a page of 2
// MiB a run may be a part.
static bool move_bytes(struct fl_vm *vm, uint64_t page, uint64_t start,
                       const struct fl_presence_kind *runs, size_t count)
{
    struct fl_capture *capture = vm->capture;
    uint64_t first = fl_layout_image_page(&vm->state->layout, page);
    const uint8_t *from = capture->bounce;
    int error = fl_vm_read(vm, capture->memory, runs, count, capture->bounce);
    if (error) {
        fl_capture_fail(capture, error, "its memory cannot be read: %s", strerror(-error));
        return false;
    }
    for (size_t i = 0; i < count && !error; i++) {
        size_t bytes = runs[i].end - runs[i].start;
        error =
            write_buffer(capture, from, first + ((runs[i].start - start) >> FL_PAGE_SHIFT), bytes);
        from += bytes;
    }
    if (error)
        fl_capture_fail(capture, error, "its pages cannot be kept in memory: %s", strerror(-error));
    return !error;
}

// --- pages ---

static bool lets_go(const struct fl_capture *capture, enum fl_capture_by by)
{
    return by == FL_CAPTURE_BY_SWEEP && !fl_capture_is_paused(capture) &&
           !(capture->flags & FL_CAPTURE_KEEP_ARMED);
}

// Pages that were certain, and that nothing protects: somebody may have written to them.
static bool is_torn(struct fl_capture *capture, const struct fl_presence_look *look)
{
    for (size_t i = 0; i < look->count && !fl_capture_is_paused(capture); i++) {
        if (!look->kind[i].protected) {
            fl_capture_fail(capture, -EBADMSG, "page 0x%llx was not write-protected",
                            (unsigned long long)look->kind[i].start);
            return true;
        }
    }
    return false;
}

static void pass_absent(struct fl_vm *vm, uint64_t page, uint64_t count)
{
    if (count > 0)
        fl_capture_set_done(vm, page, count, FL_CAPTURED_ABSENT);
}

// All that one look has found: no more than fits at once.
static uint64_t copy_small(struct fl_vm *vm, uint64_t page, const struct fl_presence_look *look,
                           enum fl_capture_by by)
{
    uint64_t at = page;
    if (look->count > 0 && !move_bytes(vm, page, look->start, look->kind, look->count))
        return page;
    FL_CRASH_POINT("capture_copied");
    for (size_t i = 0; i < look->count; i++) {
        uint64_t first = page + ((look->kind[i].start - look->start) >> FL_PAGE_SHIFT);
        uint64_t count = (look->kind[i].end - look->kind[i].start) >> FL_PAGE_SHIFT;
        pass_absent(vm, at, first - at);
        fl_capture_set_done(vm, first, count, FL_CAPTURED_DATA);
        count_copied(vm->capture, count, by);
        at = first + count;
    }
    uint64_t end = page + ((look->looked - look->start) >> FL_PAGE_SHIFT);
    pass_absent(vm, at, end - at);
    return end;
}

// In parts: those that are copied stay so, as the page is protected. The sweep does one in a slice;
// what a thread waits for is copied to its end, and the sweep may be in the middle of another page
// meanwhile. False: not all of it is there yet, or it fails.
static bool move_huge(struct fl_vm *vm, uint64_t page, enum fl_capture_by by)
{
    struct fl_capture *capture = vm->capture;
    uint64_t start = fl_layout_address(&vm->state->layout, page);
    if (by == FL_CAPTURE_BY_SWEEP && capture->part_of != page) {
        capture->part_of = page;
        capture->part = 0;
    }
    uint64_t begun = capture->part_of == page ? capture->part : 0;
    uint64_t end = by == FL_CAPTURE_BY_SWEEP ? begun + BOUNCE_PAGES : FL_HUGE_PAGES;
    for (uint64_t at = begun; at < end; at += BOUNCE_PAGES) {
        struct fl_presence_kind part = {.start = start + (at << FL_PAGE_SHIFT)};
        part.end = part.start + FL_CAPTURE_BOUNCE;
        if (!move_bytes(vm, page, start, &part, 1))
            return false;
        if (capture->part_of == page)
            capture->part = at + BOUNCE_PAGES;
    }
    if (end == FL_HUGE_PAGES && capture->part_of == page)
        capture->part = 0;
    return end == FL_HUGE_PAGES;
}

// The first page that a look has found, and those before it, which are not there. Their mark, that
// they shall be protected when they come, goes with the page.
static uint64_t copy_huge(struct fl_vm *vm, uint64_t page, const struct fl_presence_look *look,
                          enum fl_capture_by by)
{
    uint64_t there = look->count > 0 ? look->kind[0].start : look->looked;
    uint64_t end = page + ((there - look->start) >> FL_HUGE_SHIFT);
    pass_absent(vm, page, end - page);
    if (look->count > 0 && move_huge(vm, end, by)) {
        FL_CRASH_POINT("capture_copied");
        fl_capture_set_done(vm, end, 1, FL_CAPTURED_DATA);
        count_copied(vm->capture, FL_HUGE_PAGES, by);
        end++;
    }
    if (page < end && lets_go(vm->capture, by))
        fl_capture_unprotect(vm, page, end - page);
    return end;
}

// What one look has found of the pages from `page` on. The first page that is not done with.
static uint64_t act_on_look(struct fl_vm *vm, uint64_t page, const struct fl_presence_look *look,
                            enum fl_capture_by by)
{
    if (is_torn(vm->capture, look))
        return page;
    return vm->page_shift == FL_PAGE_SHIFT ? copy_small(vm, page, look, by)
                                           : copy_huge(vm, page, look, by);
}

// A slice has copied what it may, or is in the middle of a page of 2 MiB.
static bool slice_is_over(const struct fl_capture *capture, uint64_t most)
{
    return units_copied(capture) >= most || capture->part > 0;
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
        if (slice_is_over(capture, most))
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
    return copied > capture->ahead_units && consumed < copied - capture->ahead_units;
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

// Up to `end`, as far as a slice goes; what is done is told to the reader. True if something was
// left of it.
static bool copy_hurried(struct fl_vm *vm, uint64_t page, uint64_t end)
{
    struct fl_capture *capture = vm->capture;
    uint64_t most = units_copied(capture) + BOUNCE_PAGES;
    bool left = false;
    for (unsigned runs = 0; runs < RUNS && page < end && units_copied(capture) < most; runs++) {
        uint64_t first = fl_bits_next_clear(capture->done, capture->done, page, end);
        if (first > page) // told twice it says the same
            fl_capture_set_done(vm, page, first - page, FL_CAPTURED_PARENT);
        page = first;
        left = page < end;
        if (left &&
            !fl_capture_copy(vm, &page, fl_bits_next_set(capture->done, capture->done, page, end),
                             FL_CAPTURE_BY_SWEEP))
            return true;
    }
    return left;
}

// What a VM waits for that was restored from the image before all of it is there. It does not wait
// for room in the buffer, as it is no more than a chunk. What the reader asks for may be anything.
static bool sweep_hurried(struct fl_vm *vm)
{
    const struct fl_capture_board *board = vm->capture->board;
    uint64_t hurried = atomic_load_explicit(&board->hurried, memory_order_relaxed);
    if (hurried == 0 || hurried > board->image_pages || hurried == vm->capture->hurried)
        return false;
    uint64_t at = hurried - 1;
    uint64_t end = at + FL_CAPTURE_HURRIED;
    bool any = false;
    while (at < end && at < board->image_pages && !any) {
        uint64_t page = 0;
        uint64_t units = 0;
        if (!fl_layout_from_image(&vm->state->layout, at, &page, &units)) {
            at++;
            continue;
        }
        units = units < end - at ? units : end - at;
        uint64_t last = page + (units + fl_vm_page_units(vm) - 1) / fl_vm_page_units(vm);
        any = copy_hurried(vm, page, last < vm->capture->pages ? last : vm->capture->pages);
        at += units;
    }
    if (!any) // it is not looked at again until the reader has seen that
        vm->capture->hurried = hurried;
    return any;
}

// Many pages of 4 KiB at once, as each call interrupts all CPUs on which the guest runs. Until then
// a write to one costs a fault, without a copy. One call a slice: where the sweep has passed many
// pages at once, most of them were not copied. What is left comes at the end (unprotect.h).
static void let_go(struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    const struct fl_layout *layout = &vm->state->layout;
    if (vm->page_shift != FL_PAGE_SHIFT || !lets_go(capture, FL_CAPTURE_BY_SWEEP) ||
        capture->next < capture->let_go_to + LET_GO)
        return;
    if (capture->next > capture->let_go_to + (uint64_t)2 * LET_GO)
        capture->let_go_to = capture->next - LET_GO;
    uint64_t first = capture->let_go_to;
    const struct fl_region *region = fl_layout_region(layout, first);
    uint64_t end = region->first_page + (region->bytes >> layout->page_shift);
    end = end < capture->next ? end : capture->next;
    capture->let_go_to = end;
    fl_capture_unprotect(vm, first, end - first);
}

bool fl_capture_sweep(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    if (sweep_hurried(vm))
        return true;
    tell_done(vm);
    if (capture->next == capture->pages) {
        fl_capture_copied(shard, vm);
        return true;
    }
    if (buffer_is_full(capture) || FL_HELD("capture_sweep")) {
        capture->task.not_before_ns = shard->now + FULL_PAUSE;
        return false;
    }
    uint64_t most = units_copied(capture) + BOUNCE_PAGES;
    for (unsigned runs = 0; runs < RUNS; runs++) {
        uint64_t end =
            capture->next + WINDOW < capture->pages ? capture->next + WINDOW : capture->pages;
        end = fl_bits_next_set(capture->done, capture->done, capture->next, end);
        if (!fl_capture_copy(vm, &capture->next, end, FL_CAPTURE_BY_SWEEP))
            break;
        tell_done(vm);
        if (slice_is_over(capture, most))
            break;
    }
    let_go(vm);
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
