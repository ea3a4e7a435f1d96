// SPDX-License-Identifier: Apache-2.0
#include "engine/cache/frame_part.h"

#include <errno.h>
#include <string.h>

// The part's whole frame into `to`.
static int get(const struct fl_part *part, const void *stored, void *to)
{
    const struct fl_image *image = part->load->image;
    return stored ? fl_frame_unpack(image, part->id, stored, to)
                  : fl_frame_read(image, part->id, to);
}

static int get_frame(const struct fl_part *part, const void *stored)
{
    struct fl_frame *frame = part->load->frame;
    if (frame->pages == 0)
        return -EBADMSG;
    if (!frame->data.bytes)
        frame->data = fl_frame_memory_get(&frame->cache->memory, frame->pages, NULL);
    return frame->data.bytes ? get(part, stored, frame->data.bytes) : -ENOMEM;
}

static void put_pieces(const struct fl_part *part, const uint8_t *bytes)
{
    const struct fl_load *load = part->load;
    for (uint16_t i = part->first_piece; i != FL_NO_PIECE; i = load->piece[i].next) {
        const struct fl_piece *piece = &load->piece[i];
        memcpy(load->frame->data.bytes + ((size_t)piece->to << FL_PAGE_SHIFT),
               bytes + ((size_t)piece->slot << FL_PAGE_SHIFT),
               (size_t)piece->pages << FL_PAGE_SHIFT);
    }
}

// Straight into its place if all of the frame belongs there in one piece. A frame that another VM
// has in the cache is not read again.
static int get_pieces(const struct fl_part *part, const void *stored)
{
    struct fl_load *load = part->load;
    struct fl_frame_memory *memory = &load->cache->memory;
    struct fl_frame *there = fl_cache_pin(load->cache, part->id);
    if (there) {
        put_pieces(part, there->data.bytes);
        fl_frame_unpin(there);
        return 0;
    }
    uint32_t pages = fl_frame_pages(load->image, part->id);
    if (pages == 0)
        return -EBADMSG;
    const struct fl_piece *piece = &load->piece[part->first_piece];
    if (piece->pages == pages && piece->next == FL_NO_PIECE)
        return get(part, stored, load->frame->data.bytes + ((size_t)piece->to << FL_PAGE_SHIFT));
    struct fl_buffer whole = fl_frame_memory_get(memory, pages, NULL);
    if (!whole.bytes)
        return -ENOMEM;
    int error = get(part, stored, whole.bytes);
    if (!error)
        put_pieces(part, whole.bytes);
    fl_frame_memory_put(memory, whole, pages);
    return error;
}

int fl_part_attempt(const struct fl_part *part, const void *stored)
{
    return part->load->frame->key.at & FL_KEY_HUGE ? get_pieces(part, stored)
                                                   : get_frame(part, stored);
}
