// SPDX-License-Identifier: Apache-2.0
//
// Memory for frames and for pages of 2 MiB. What a full cache evicts is what the next frame is put
// into: memory that is new to the process costs more to touch for the first time than a frame takes
// to decompress. So a few buffers are kept; the rest goes back to the allocator.
//
// Any thread but workers: it takes a lock.
#ifndef FAULTLINE_ENGINE_FRAME_MEMORY_H
#define FAULTLINE_ENGINE_FRAME_MEMORY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fl_spare; // a buffer that is kept

struct fl_frame_memory {
    pthread_mutex_t lock;   // covers the rest
    struct fl_spare *frame; // of FL_FRAME_PAGES pages
    struct fl_spare *huge;
    unsigned frames;
    unsigned huges;
};

void fl_frame_memory_init(struct fl_frame_memory *memory);
// When all of it was put back.
void fl_frame_memory_fini(struct fl_frame_memory *memory);

// `pages` pages of 4 KiB, aligned to one (512 of them to 2 MiB); NULL without memory.
// *ret_zero (may be NULL): whether all of it is known to be zero.
void *fl_frame_memory_get(struct fl_frame_memory *memory, uint32_t pages, bool *ret_zero);
// NULL is allowed.
void fl_frame_memory_put(struct fl_frame_memory *memory, void *bytes, uint32_t pages);

#endif
