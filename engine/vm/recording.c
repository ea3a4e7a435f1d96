// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/recording.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/bitmap.h"
#include "engine/base/clock.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// 16 GiB that were touched, within a window of seconds.
#define ENTRIES_MOST ((uint64_t)1 << 22)

static uint64_t recording_room(const struct fl_image *image, unsigned share)
{
    uint64_t pages = fl_image_pages(image) * share / 100;
    pages = pages > 0 ? pages : 1;
    return pages < ENTRIES_MOST ? pages : ENTRIES_MOST;
}

uint64_t fl_vm_recording_bytes(const struct fl_image *image, const struct fl_layout *layout,
                               unsigned share)
{
    return sizeof(struct fl_vm_recording) +
           recording_room(image, share) * sizeof(struct fl_trace_entry) +
           fl_bitmap_bytes(layout->pages);
}

void fl_vm_recording_free(struct fl_vm_recording *touches)
{
    free(touches->entry);
    free(touches->seen);
    free(touches);
}

struct fl_vm_recording *fl_vm_recording_new(const struct fl_image *image,
                                            const struct fl_layout *layout, uint64_t window_ms,
                                            unsigned share)
{
    struct fl_vm_recording *touches = calloc(1, sizeof(*touches));
    if (!touches)
        return NULL;
    touches->image_pages = fl_image_pages(image);
    memcpy(touches->content_id, fl_image_content_id(image), sizeof(touches->content_id));
    touches->begun_ns = fl_now();
    touches->until_ns = touches->begun_ns + window_ms * FL_NS_PER_MS;
    touches->room = recording_room(image, share);
    touches->bytes = fl_vm_recording_bytes(image, layout, share);
    touches->entry = calloc(touches->room, sizeof(*touches->entry));
    touches->seen = calloc(1, fl_bitmap_bytes(layout->pages));
    CDS_INIT_LIST_HEAD(&touches->in_order);
    if (touches->entry && touches->seen)
        return touches;
    fl_vm_recording_free(touches);
    return NULL;
}

// A page of 2 MiB is 512 of the image's: which of them was meant is not known.
static void recording_put(struct fl_vm_recording *touches, uint64_t first, uint64_t end,
                          uint64_t now)
{
    uint64_t ms = (now - touches->begun_ns) / FL_NS_PER_MS;
    uint64_t count = fl_counter_get(&touches->count);
    uint64_t before = count;
    for (uint64_t page = first; page < end && count < touches->room; page++)
        touches->entry[count++] = (struct fl_trace_entry){.page = page, .ms = (uint32_t)ms};
    fl_counter_add(&touches->count, count - before);
}

void fl_vm_recording_note(struct fl_shard *shard, struct fl_vm *vm, uint64_t page)
{
    struct fl_vm_recording *touches = vm->touches;
    if (shard->now >= touches->until_ns) {
        fl_vm_recording_end(shard, vm);
        return;
    }
    if (fl_bit_test(touches->seen, page) || fl_bit_test(vm->removed, page))
        return;
    fl_bits_set(touches->seen, page, 1);
    uint64_t first = fl_layout_image_page(&vm->state->layout, page);
    uint64_t end = first + fl_vm_page_units(vm);
    recording_put(touches, first, end < touches->image_pages ? end : touches->image_pages,
                  shard->now);
    if (fl_counter_get(&touches->count) == touches->room)
        fl_vm_recording_end(shard, vm);
}

void fl_vm_recording_look(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_vm_recording *touches = vm->touches;
    if (shard->now >= touches->until_ns || atomic_load(&touches->cancelled))
        fl_vm_recording_end(shard, vm);
}

void fl_vm_recording_end(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_vm_recording *touches = vm->touches;
    if (!touches)
        return;
    vm->touches = NULL;
    shard->recorded--;
    fl_mailbox_post(shard->control, &touches->mail);
}
