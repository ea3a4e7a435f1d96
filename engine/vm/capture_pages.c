// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/capture_pages.h"

#include <errno.h>
#include <stdio.h>

#include "engine/base/bitmap.h"
#include "engine/vm/vm.h"

// --- the board ---

// A reader that sees the bit sees what was written before.
static void board_set(uint64_t *map, uint64_t first, uint64_t count)
{
    while (count > 0) {
        uint64_t low = first % 64;
        uint64_t bits = 64 - low < count ? 64 - low : count;
        uint64_t mask = (bits == 64 ? ~0ULL : (1ULL << bits) - 1) << low;
        uint64_t *word = &map[first / 64];
        __atomic_store_n(word, *word | mask, __ATOMIC_RELEASE);
        first += bits;
        count -= bits;
    }
}

static void board_done(const struct fl_vm *vm, uint64_t page, uint64_t count, enum fl_captured how)
{
    struct fl_capture *capture = vm->capture;
    uint64_t first = fl_layout_image_page(&vm->state->layout, page);
    uint64_t units = count * fl_vm_page_units(vm);
    if (how == FL_CAPTURED_DATA)
        board_set(capture->board_data, first, units);
    if (how == FL_CAPTURED_ZERO)
        board_set(capture->board_zero, first, units);
    board_set(capture->board_done, first, units);
}

static void fail(struct fl_capture *capture, const char *reason)
{
    if (capture->error)
        return;
    capture->error = -EIO;
    snprintf(capture->reason, sizeof(capture->reason), "%s", reason);
}

// What was dropped without an event may have been there at the freeze: nobody knows any more.
static void check_told(const struct fl_vm *vm, uint64_t page, uint64_t end)
{
    while (!(vm->state->flags & FL_VM_STATE_TOLD) && page < end) {
        page = fl_bits_next_set(vm->installed, vm->installed, page, end);
        if (page < end && fl_vm_may_be_dropped(vm, page) && !fl_bit_test(vm->removed, page))
            fail(vm->capture, "memory was dropped without an event");
        page++;
    }
}

static void absent_done(const struct fl_vm *vm, uint64_t page, uint64_t count)
{
    uint64_t end = page + count;
    check_told(vm, page, end);
    while (page < end) {
        bool zero = fl_bit_test(vm->removed, page); // the guest gave it back
        uint64_t next = page + 1;
        while (next < end && fl_bit_test(vm->removed, next) == zero)
            next++;
        board_done(vm, page, next - page, zero ? FL_CAPTURED_ZERO : FL_CAPTURED_PARENT);
        page = next;
    }
}

void fl_capture_set_done(struct fl_vm *vm, uint64_t page, uint64_t count, enum fl_captured how)
{
    if (how == FL_CAPTURED_ABSENT)
        absent_done(vm, page, count);
    else
        board_done(vm, page, count, how);
    fl_bits_set(vm->capture->done, page, count);
}

// --- what is protected ---

void fl_capture_set_armed(struct fl_capture *capture, uint64_t page, uint64_t count)
{
    capture->unarmed_count -= fl_bits_clear(capture->unarmed, page, count);
}

void fl_capture_set_unarmed(struct fl_capture *capture, uint64_t page, uint64_t count)
{
    capture->unarmed_count += fl_bits_set(capture->unarmed, page, count);
}

bool fl_capture_holds(const struct fl_capture *capture)
{
    return capture->phase == FL_CAPTURE_FROZEN ||
           (capture->phase == FL_CAPTURE_FREEZING && capture->copying);
}

// --- what happens to pages ---

// What is not done, of pages that were absent until now.
static void note_absent(struct fl_vm *vm, uint64_t page, uint64_t end)
{
    const uint64_t *done = vm->capture->done;
    while ((page = fl_bits_next_clear(done, done, page, end)) < end) {
        uint64_t next = fl_bits_next_set(done, done, page, end);
        fl_capture_set_done(vm, page, next - page, FL_CAPTURED_ABSENT);
        page = next;
    }
}

void fl_capture_installed(struct fl_vm *vm, uint64_t page, uint64_t count)
{
    struct fl_capture *capture = vm->capture;
    fl_capture_set_unarmed(capture, page, count);
    fl_bits_set(capture->changed, page, count);
    fl_bits_clear(capture->doubtful, page, count);
    if (fl_capture_holds(capture))
        note_absent(vm, page, page + count);
}

uint64_t fl_capture_span_pages(const struct fl_vm *vm, uint64_t start, uint64_t end,
                               uint32_t *index, uint64_t *ret_page)
{
    const struct fl_layout *layout = &vm->state->layout;
    while (*index < layout->regions) {
        const struct fl_region *region = &layout->region[(*index)++];
        uint64_t from = start > region->base ? start - region->base : 0;
        uint64_t to = end > region->base ? end - region->base : 0;
        to = to < region->bytes ? to : region->bytes;
        if (from >= to)
            continue;
        uint64_t first = from >> layout->page_shift;
        uint64_t last = (to + fl_vm_page_bytes(vm) - 1) >> layout->page_shift;
        *ret_page = region->first_page + first;
        return last - first;
    }
    return 0;
}

void fl_capture_removed(struct fl_vm *vm, uint64_t start, uint64_t end)
{
    struct fl_capture *capture = vm->capture;
    uint32_t index = 0;
    uint64_t page = 0;
    uint64_t count;
    while ((count = fl_capture_span_pages(vm, start, end, &index, &page)) > 0) {
        if (fl_capture_holds(capture) &&
            fl_bits_next_clear(capture->done, capture->done, page, page + count) < page + count)
            fail(capture, "the guest gave memory back before it was copied");
        fl_capture_set_unarmed(capture, page, count);
        fl_bits_set(capture->changed, page, count);
        // A part of a page of 2 MiB stays where it is.
        uint64_t shift = vm->page_shift;
        uint64_t base = fl_layout_address(&vm->state->layout, page);
        uint64_t whole = base < start ? 1 : 0;
        uint64_t whole_end = base + (count << shift) > end ? count - 1 : count;
        if (whole < whole_end)
            fl_bits_set(capture->doubtful, page + whole, whole_end - whole);
    }
}
