// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/vm_image.h"

#include "engine/base/bitmap.h"
#include "engine/vm/vm.h"

struct fl_run fl_vm_run(const struct fl_vm *vm, uint64_t page, uint32_t pages)
{
    const struct fl_layout *layout = &vm->state->layout;
    uint64_t image_page = fl_layout_image_page(layout, page);
    if (pages > 1) {
        const struct fl_region *region = fl_layout_region(layout, page);
        uint64_t end = region->first_page + (region->bytes >> layout->page_shift);
        end = page + pages < end ? page + pages : end;
        pages = (uint32_t)(fl_bits_next_set(vm->removed, vm->installed, page + 1, end) - page);
    }
    return fl_image_run(vm->image, image_page, pages);
}

// What lies beyond the image's end is zero. Bytes are bytes, whatever else is not known yet.
enum fl_page_kind fl_vm_page_kind(const struct fl_vm *vm, uint64_t page,
                                  struct fl_frame_id *ret_unread)
{
    uint64_t at = fl_layout_image_page(&vm->state->layout, page);
    uint64_t end = at + fl_vm_page_units(vm);
    uint64_t image_end = fl_image_pages(vm->image);
    end = end < image_end ? end : image_end;
    while (at < end) {
        struct fl_run run = fl_image_run(vm->image, at, (uint32_t)(end - at));
        if (run.unread)
            *ret_unread = run.id;
        if (!run.zero)
            return run.unread ? FL_PAGE_UNREAD : FL_PAGE_BYTES;
        at += run.pages;
    }
    return FL_PAGE_ZERO;
}

const char *fl_vm_file(const struct fl_vm *vm, char buf[FL_VM_PATH])
{
    return vm->image ? fl_frame_path(vm->image, vm->failed, buf, FL_VM_PATH) : "-";
}

// A page of 2 MiB has many frames, perhaps of several packs: which of them it was the load knows.
void fl_vm_note_file(struct fl_vm *vm, uint64_t page, struct fl_frame_id failed)
{
    uint64_t image_page = fl_layout_image_page(&vm->state->layout, page);
    vm->failed = failed;
    if (failed.pack || !vm->image || vm->page_shift != FL_PAGE_SHIFT ||
        image_page >= fl_image_pages(vm->image))
        return;
    struct fl_run run = fl_image_run(vm->image, image_page, 1);
    if (!run.zero)
        vm->failed = run.id;
}
