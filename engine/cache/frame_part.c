// SPDX-License-Identifier: Apache-2.0
#include "engine/cache/frame_part.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// --- the parts of a page of 2 MiB ---

static bool same_frame(struct fl_frame_id a, struct fl_frame_id b)
{
    return a.pack == b.pack && a.frame == b.frame;
}

static void add_piece(struct fl_load *load, const struct fl_run *run, uint32_t to, uint16_t pieces)
{
    struct fl_piece *piece = &load->piece[pieces];
    uint32_t k = load->parts; // the last ones first, as neighbours mostly share
    while (k > 0 && !same_frame(load->part[k - 1].id, run->id))
        k--;
    *piece = (struct fl_piece){
        .to = (uint16_t)to, .slot = (uint16_t)run->slot, .pages = (uint16_t)run->pages};
    struct fl_part *part = &load->part[k > 0 ? k - 1 : load->parts];
    if (k == 0) {
        load->parts++;
        *part = (struct fl_part){.load = load, .id = run->id, .first_piece = FL_NO_PIECE};
    }
    piece->next = part->first_piece;
    part->first_piece = pieces;
}

// The run at page `at` of the 512; what lies beyond the image's end is zero.
static struct fl_run run_at(const struct fl_load *load, uint32_t at)
{
    uint64_t page = (load->frame->key.at & ~FL_KEY_HUGE) + at;
    if (page < fl_image_pages(load->image))
        return fl_image_run(load->image, page, FL_HUGE_PAGES - at);
    return (struct fl_run){.zero = true, .pages = FL_HUGE_PAGES - at};
}

static uint32_t count_pieces(const struct fl_load *load)
{
    uint32_t pieces = 0;
    for (uint32_t at = 0; at < FL_HUGE_PAGES;) {
        struct fl_run run = run_at(load, at);
        pieces += !run.zero;
        at += run.pages;
    }
    return pieces;
}

// Zeros are written where they are not known to be there already.
static void place_pieces(struct fl_load *load, bool zero)
{
    uint16_t pieces = 0;
    for (uint32_t at = 0; at < FL_HUGE_PAGES;) {
        struct fl_run run = run_at(load, at);
        size_t bytes = (size_t)run.pages << FL_PAGE_SHIFT;
        if (!run.zero)
            add_piece(load, &run, at, pieces++);
        else if (!zero)
            memset(load->frame->data.bytes + ((size_t)at << FL_PAGE_SHIFT), 0, bytes);
        at += run.pages;
    }
}

// 0 if the map of all 512 pages is in memory. Only a reader thread may wait for it to be read.
static int know_map(const struct fl_load *load, bool may_read)
{
    uint64_t page = load->frame->key.at & ~FL_KEY_HUGE;
    if (may_read)
        return fl_image_read_map(load->image, page, FL_HUGE_PAGES);
    for (uint32_t at = 0; at < FL_HUGE_PAGES;) {
        struct fl_run run = run_at(load, at);
        if (run.unread)
            return -EAGAIN;
        at += run.pages;
    }
    return 0;
}

int fl_load_find_parts(struct fl_load *load, bool may_read)
{
    bool zero = false;
    int error = know_map(load, may_read);
    if (error)
        return error;
    uint32_t most = count_pieces(load);
    struct fl_frame *frame = load->frame;
    struct fl_part *part = malloc((most ? most : 1) * sizeof(*part));
    struct fl_piece *piece = malloc((most ? most : 1) * sizeof(*piece));
    frame->data = fl_frame_memory_get(&load->cache->memory, FL_HUGE_PAGES, &zero);
    if (!part || !piece || !frame->data.bytes) {
        fl_frame_memory_put(&load->cache->memory, frame->data, FL_HUGE_PAGES);
        frame->data = (struct fl_buffer){.bytes = NULL};
        free(part);
        free(piece);
        return -ENOMEM;
    }
    load->part = part;
    load->piece = piece;
    place_pieces(load, zero);
    return 0;
}

// --- the bytes of one part ---

// The part's whole frame into `to`.
static int get_bytes(const struct fl_part *part, const void *stored, void *to)
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
    return frame->data.bytes ? get_bytes(part, stored, frame->data.bytes) : -ENOMEM;
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
    struct fl_frame *there = fl_frame_table_pin(load->cache, part->id);
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
        return get_bytes(part, stored,
                         load->frame->data.bytes + ((size_t)piece->to << FL_PAGE_SHIFT));
    struct fl_buffer whole = fl_frame_memory_get(memory, pages, NULL);
    if (!whole.bytes)
        return -ENOMEM;
    int error = get_bytes(part, stored, whole.bytes);
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
