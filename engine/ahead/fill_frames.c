// SPDX-License-Identifier: Apache-2.0
#include "engine/ahead/fill_frames.h"

#include "engine/base/bitmap.h"
#include "engine/cache/frame_cache.h"
#include "engine/serve/vm_image.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

enum {
    AHEAD_PAGES = 4096, // how far ahead frames are asked for
    ASK_AFTER = 512,    // pages, since they were asked for the last time
    AHEAD_HUGE = 16,    // how many further ones are asked for
    AHEAD_FRAMES = 64,  // in one call
};

// The next page from `at` on, before `end`, that is neither there nor was given back; its row of
// such pages, in one region, as far as one run of the image has it.
static struct fl_run next_missing(const struct fl_vm *vm, uint64_t *at, uint64_t end)
{
    const struct fl_layout *layout = &vm->state->layout;
    *at = fl_bits_next_clear(vm->removed, vm->installed, *at, end);
    if (*at == end)
        return (struct fl_run){.zero = true};
    const struct fl_region *region = fl_layout_region(layout, *at);
    uint64_t last = region->first_page + (region->bytes >> layout->page_shift);
    last = last < end ? last : end;
    last = last < *at + FL_FRAME_PAGES ? last : *at + FL_FRAME_PAGES;
    last = fl_bits_next_set(vm->removed, vm->installed, *at, last);
    return fl_image_run(vm->image, fl_layout_image_page(layout, *at), (uint32_t)(last - *at));
}

static bool same(struct fl_frame_id a, struct fl_frame_id b)
{
    return a.pack == b.pack && a.frame == b.frame;
}

void fl_fill_ask_ahead(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_fill *fill = &vm->fill;
    uint64_t end = fill->next + AHEAD_PAGES < fill->end ? fill->next + AHEAD_PAGES : fill->end;
    if (fill->ahead < fill->next)
        fill->ahead = fill->next;
    if (fill->ahead == fill->end || fill->ahead + ASK_AFTER > fill->next + AHEAD_PAGES)
        return;
    struct fl_frame_id ids[AHEAD_FRAMES];
    uint32_t count = 0;
    uint64_t at = fill->ahead;
    while (at < end && count < AHEAD_FRAMES) {
        struct fl_run run = next_missing(vm, &at, end);
        if (!run.zero && (count == 0 || !same(ids[count - 1], run.id)))
            ids[count++] = run.id;
        if (run.unread) // what it has is not known yet
            break;
        at += run.pages;
    }
    // Without room for all of them, the same ones again the next time.
    if (fl_cache_ahead_for(shard->cache, vm->image, ids, count, vm->id) == count)
        fill->ahead = at;
}

// Those that will be in the making next, one a call: each is some thousand times the work of this.
void fl_fill_ask_ahead_huge(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_fill *fill = &vm->fill;
    const struct fl_layout *layout = &vm->state->layout;
    if (fill->ahead < fill->next)
        fill->ahead = fill->next;
    while (fill->ahead < fill->next + AHEAD_HUGE && fill->ahead < layout->pages) {
        uint64_t first = fl_layout_image_page(layout, fill->ahead);
        struct fl_frame_id unread;
        enum fl_page_kind kind = fl_vm_page_kind(vm, fill->ahead, &unread);
        if (kind == FL_PAGE_UNREAD)
            fl_cache_ahead(shard->cache, vm->image, &unread, 1);
        if (kind == FL_PAGE_UNREAD ||
            (kind == FL_PAGE_BYTES &&
             fl_cache_ahead_huge_for(shard->cache, vm->image, &first, 1, vm->id) == 0))
            return;
        fill->ahead++;
    }
}

// --- what was used ---

void fl_fill_took(struct fl_shard *shard, struct fl_vm *vm, struct fl_frame_id id)
{
    struct fl_fill *fill = &vm->fill;
    unsigned known = fill->taken < FL_FILL_TAKING ? fill->taken : FL_FILL_TAKING;
    for (unsigned i = 1; i <= known; i++) {
        if (same(fill->taking[(fill->taken - i) % FL_FILL_TAKING], id))
            return;
    }
    struct fl_frame_id *place = &fill->taking[fill->taken++ % FL_FILL_TAKING];
    if (known == FL_FILL_TAKING)
        fl_cache_taken(shard->cache, *place, vm->id);
    *place = id;
}

void fl_fill_took_all(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_fill *fill = &vm->fill;
    unsigned known = fill->taken < FL_FILL_TAKING ? fill->taken : FL_FILL_TAKING;
    for (unsigned i = 0; i < known; i++)
        fl_cache_taken(shard->cache, fill->taking[i], vm->id);
    fill->taken = 0;
}
