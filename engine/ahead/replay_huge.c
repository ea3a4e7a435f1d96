// SPDX-License-Identifier: Apache-2.0
//
// Pages of 2 MiB: the entries of the trace name them in the order of their first appearance. Each
// is made as a fault would have it made, several at a time.
#include <errno.h>
#include <stdlib.h>

#include "engine/ahead/replay.h"
#include "engine/base/bitmap.h"
#include "engine/cache/frame_cache.h"
#include "engine/image/plan.h"
#include "engine/serve/resolve.h"
#include "engine/serve/vm_image.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

enum { HUGE_AT_ONCE = 4, LOOK_AT_ONCE = 2048 };

int fl_replay_begin_huge(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_replay *replay = &vm->replay;
    (void)shard;
    size_t bytes = fl_bitmap_bytes(vm->state->layout.pages);
    replay->asked = calloc(1, bytes);
    replay->tried = calloc(1, bytes);
    replay->end = fl_trace_count(replay->plan->trace);
    return replay->asked && replay->tried ? 0 : -ENOMEM;
}

static uint64_t huge_most(const struct fl_shard *shard)
{
    uint64_t bytes = shard->options->replay_bytes;
    uint64_t huge = FL_HUGE_BYTES;
    return bytes > 0 ? (bytes + huge - 1) / huge : UINT64_MAX;
}

// The VM's page at *at, or at the first entry behind it whose page the map has not; *at is behind
// it then. False: not within as many looks as are left, or before the trace's end.
static bool trace_next_new(const struct fl_vm *vm, uint64_t *at, uint64_t *map, unsigned *looks,
                           uint64_t *ret_page)
{
    const struct fl_trace_entry *entry = fl_trace_entries(vm->replay.plan->trace);
    while (*at<vm->replay.end && * looks> 0) {
        uint64_t left = 0;
        uint64_t page = entry[(*at)++].page;
        --*looks;
        if (!fl_layout_from_image(&vm->state->layout, page, ret_page, &left) ||
            fl_bit_test(map, *ret_page))
            continue;
        fl_bits_set(map, *ret_page, 1);
        return true;
    }
    return false;
}

static bool is_there(const struct fl_vm *vm, uint64_t page)
{
    return fl_bit_test(vm->installed, page) || fl_bit_test(vm->removed, page);
}

static bool huge_ask_ahead(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_replay *replay = &vm->replay;
    unsigned looks = LOOK_AT_ONCE;
    uint64_t page = 0;
    uint64_t distance = fl_replay_distance(shard) / FL_HUGE_PAGES + 1;
    if (replay->asked_count >= replay->tried_count + distance ||
        replay->asked_count >= huge_most(shard) ||
        !trace_next_new(vm, &replay->ahead, replay->asked, &looks, &page))
        return looks == 0;
    replay->asked_count++;
    uint64_t first = fl_layout_image_page(&vm->state->layout, page);
    struct fl_frame_id unread; // none, mostly: the plan has had the map read
    if (!is_there(vm, page) && fl_vm_page_kind(vm, page, &unread) == FL_PAGE_BYTES)
        fl_cache_ahead_huge_for(shard->cache, vm->image, &first, 1, vm->id); // no room: when tried
    return true;
}

// What is in the making is a park, of a fault or of our own.
static bool huge_try_next(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_replay *replay = &vm->replay;
    unsigned looks = LOOK_AT_ONCE;
    uint64_t page = 0;
    if (vm->parks.count >= HUGE_AT_ONCE)
        return false;
    if (replay->tried_count >= huge_most(shard))
        replay->next = replay->end;
    if (!trace_next_new(vm, &replay->next, replay->tried, &looks, &page))
        return looks == 0;
    replay->tried_count++;
    if (!is_there(vm, page) && !fl_park_find(vm, page))
        fl_resolve_ahead(shard, vm, page);
    return true;
}

bool fl_replay_slice_huge(struct fl_shard *shard, struct fl_vm *vm)
{
    bool any = huge_ask_ahead(shard, vm);
    return huge_try_next(shard, vm) || any;
}
