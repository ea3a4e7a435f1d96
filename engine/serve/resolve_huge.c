// SPDX-License-Identifier: Apache-2.0
//
// A page of 2 MiB comes whole from the frame cache, where reader threads put it together.
#include "engine/serve/resolve_huge.h"

#include "engine/serve/vm_image.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// The page of 2 MiB is the VM's now: if no other one has asked for it, nobody needs it.
static enum fl_outcome take(struct fl_want *want, const struct fl_frame *frame, uint64_t first_page)
{
    struct fl_vm *vm = want->vm;
    struct fl_cache *cache = want->shard->cache;
    enum fl_outcome outcome = fl_want_frame(want, frame);
    if (outcome == FL_INSTALLED)
        fl_cache_taken_huge(cache, vm->image, first_page, vm->id);
    return outcome;
}

enum fl_outcome fl_resolve_huge(struct fl_want *want)
{
    const struct fl_frame *frame = want->park ? fl_park_huge(want->park) : NULL;
    uint64_t first_page = fl_layout_image_page(&want->vm->state->layout, want->page);
    if (!frame)
        frame =
            fl_cache_lookup_huge_for(want->shard->cache, want->vm->image, first_page, want->vm->id);
    if (frame) {
        fl_counter_add(&want->shard->stats->hits, !want->park);
        return take(want, frame, first_page);
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
