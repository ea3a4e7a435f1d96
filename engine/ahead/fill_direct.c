// SPDX-License-Identifier: Apache-2.0
#include "engine/ahead/fill_direct.h"

#include <stdlib.h>

#include "engine/vm/history.h"
#include "engine/vm/vm.h"

// As much as a processor keeps in its second cache, so that the copy into the VM finds it there.
enum { BUFFER_PAGES = 64 };

// How many pages from this one of the image on are bytes.
static uint32_t bytes_in_a_row(const struct fl_vm *vm, uint64_t page, uint32_t most)
{
    uint32_t pages = 0;
    while (pages < most) {
        struct fl_run run = fl_image_run(vm->image, page + pages, most - pages);
        if (run.zero || run.unread)
            break;
        pages += run.pages;
    }
    return pages;
}

static uint8_t *buffer_of(struct fl_vm *vm)
{
    if (!vm->fill.buffer)
        vm->fill.buffer = aligned_alloc(FL_PAGE_SIZE, (size_t)BUFFER_PAGES << FL_PAGE_SHIFT);
    return vm->fill.buffer;
}

// The pages from this one on that are of its kind, zeros or not.
static uint32_t row_of(const uint8_t *bytes, uint32_t most, bool *ret_zero)
{
    uint32_t pages = 1;
    *ret_zero = fl_page_is_zero(bytes);
    while (pages < most && fl_page_is_zero(bytes + ((size_t)pages << FL_PAGE_SHIFT)) == *ret_zero)
        pages++;
    return pages;
}

static void note(struct fl_vm *vm, uint64_t page, uint64_t pages, bool zero)
{
    struct fl_vm_history *history = fl_vm_history(vm);
    if (history && pages > 0)
        fl_vm_history_came(history, page, pages, zero ? FL_CAME_ZERO : FL_CAME_FILL);
}

static struct fl_filled install(struct fl_vm *vm, uint64_t page, const uint8_t *bytes,
                                uint32_t count)
{
    struct fl_filled filled = {.result = FL_INSTALL_DONE};
    while (filled.pages < count && filled.result == FL_INSTALL_DONE) {
        const uint8_t *at = bytes + (filled.pages << FL_PAGE_SHIFT);
        uint64_t done = 0;
        bool zero = false;
        uint32_t row = row_of(at, count - (uint32_t)filled.pages, &zero);
        if (zero)
            filled.result = fl_install_zero(vm, page + filled.pages, row, FL_WAKE, &done);
        else
            filled.result = fl_install_copy(vm, page + filled.pages, at, row, FL_WAKE, &done);
        note(vm, page + filled.pages, done, zero);
        filled.pages += done;
    }
    return filled;
}

bool fl_fill_direct(struct fl_vm *vm, uint64_t end, struct fl_filled *ret_filled)
{
    const struct fl_fill *fill = &vm->fill;
    // What was asked for as frames comes as frames, or it would stay unused in the cache.
    if (!fl_image_is_raw(vm->image) || vm->template || fill->next < fill->ahead)
        return false;
    uint8_t *buffer = buffer_of(vm);
    if (!buffer)
        return false;
    uint64_t page = fl_layout_image_page(&vm->state->layout, fill->next);
    uint32_t most = end - fill->next < BUFFER_PAGES ? (uint32_t)(end - fill->next) : BUFFER_PAGES;
    uint32_t got = fl_image_read_now(vm->image, page, bytes_in_a_row(vm, page, most), buffer);
    if (got == 0)
        return false;
    *ret_filled = install(vm, fill->next, buffer, got);
    return true;
}

void fl_fill_direct_end(struct fl_vm *vm)
{
    free(vm->fill.buffer);
    vm->fill.buffer = NULL;
}
