// SPDX-License-Identifier: Apache-2.0
//
// A chunk is what the stages of packing hand on: 2 MiB of the memory file, or a longer hole.
#ifndef FAULTLINE_SNAPSHOT_CHUNK_H
#define FAULTLINE_SNAPSHOT_CHUNK_H

#include "snapshot/format.h"

#define FL_CHUNK_PAGES 512u // 2 MiB: the range over which fragmentation is bounded
#define FL_CHUNK_BYTES ((size_t)FL_CHUNK_PAGES * FL_PAGE_SIZE)

struct fl_pack_companion;

struct fl_chunk {
    // Reading and hashing.
    uint64_t first_page;
    uint64_t pages;                      // at most FL_CHUNK_PAGES, unless it is a hole
    struct fl_pack_companion *companion; // that has these pages; NULL: they are memory
    bool hole;                           // nothing below is set then, but for parent_pages
    uint64_t data_bytes;
    double hash_seconds, check_seconds;
    uint8_t *input;              // a part of its batch's
    uint16_t at[FL_CHUNK_PAGES]; // in it, in pages: where a page's bytes are, if there are any
    uint32_t input_pages;        // that have bytes
    uint32_t data_pages;         // of a live source: pages of which bytes came
    bool zero[FL_CHUNK_PAGES];
    struct fl_identity identity[FL_CHUNK_PAGES];
    struct fl_disk_place hint[FL_CHUNK_PAGES]; // from the index; pack_id 0: not known
    bool checked[FL_CHUNK_PAGES];              // the hint may be used (share_check.h)
    uint32_t foreign_max;                      // frames that hints may add

    // Of a live source: pages that are as in the parent (pack_parent.h).
    bool known[FL_CHUNK_PAGES];         // the parent knows the page's identity
    uint64_t inherited[FL_CHUNK_PAGES]; // the parent's entry, where the page stays; 0: it does not
    uint32_t inherited_pages;           // of them
    uint32_t parent_pages; // identities of the parent's pages in the range, changed or not
    struct fl_identity parent_identity[FL_CHUNK_PAGES];

    // Placing.
    uint64_t entry[FL_CHUNK_PAGES]; // of the image's map
    uint16_t fresh[FL_CHUNK_PAGES]; // the pages to be stored, in order
    uint32_t fresh_count;

    // Compressing: FL_FRAME_PAGES of the fresh pages a frame, the last one shorter.
    uint32_t frames;
    struct fl_disk_frame frame[FL_CHUNK_PAGES / FL_FRAME_PAGES];
    struct fl_identity fresh_identity[FL_CHUNK_PAGES];
    uint8_t *output; // a part of its batch's: the frames' stored bytes, one after the other
    size_t output_bytes;
    double compress_seconds;
};

static inline uint8_t *fl_chunk_page(const struct fl_chunk *chunk, uint32_t page)
{
    return chunk->input + (size_t)chunk->at[page] * FL_PAGE_SIZE;
}

// Every page has bytes, at its place.
static inline void fl_chunk_fill(struct fl_chunk *chunk)
{
    chunk->input_pages = FL_CHUNK_PAGES;
    for (uint16_t page = 0; page < FL_CHUNK_PAGES; page++)
        chunk->at[page] = page;
}

// Gives `pages` pages places behind all that were given before. So the bytes of a chunk of which
// little has changed take little memory. Returns the first one's.
static inline uint8_t *fl_chunk_add(struct fl_chunk *chunk, uint32_t page, uint32_t pages)
{
    for (uint32_t i = 0; i < pages; i++)
        chunk->at[page + i] = (uint16_t)chunk->input_pages++;
    return fl_chunk_page(chunk, page);
}

// What the stages hand on: one chunk, or several of which little has changed, as each step of each
// stage has its price. One stage at a time owns a batch; pipeline.c hands it on.
#define FL_BATCH_CHUNKS 8u

struct fl_batch {
    struct fl_chunk *chunk; // room for `room` of them
    unsigned room, count;
    uint8_t *input, *output; // room * FL_CHUNK_BYTES; each chunk's are behind those before
};

#endif
