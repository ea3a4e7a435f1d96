// SPDX-License-Identifier: Apache-2.0
//
// A page of 2 MiB comes whole from the frame cache, where reader threads put it together.
#include "engine/serve/resolve.h"

#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

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

enum fl_outcome fl_resolve_huge(struct fl_want *want)
{
    const struct fl_frame *frame = want->park ? fl_park_huge(want->park) : NULL;
    uint64_t first_page = fl_layout_image_page(&want->vm->state->layout, want->page);
    if (!frame)
        frame = fl_cache_lookup_huge(want->shard->cache, want->vm->image, first_page);
    if (frame) {
        fl_counter_add(&want->shard->stats.hits, !want->park);
        return fl_want_frame(want, frame);
    }
    struct fl_frame_id unread;
    switch (fl_vm_page_kind(want->vm, want->page, &unread)) {
    case FL_PAGE_ZERO:
        return fl_want_zeros(want);
    case FL_PAGE_UNREAD:
        return fl_want_map(want, unread);
    case FL_PAGE_BYTES:
        break;
    }
    return fl_want_huge(want, first_page);
}
