// SPDX-License-Identifier: Apache-2.0
//
// Memory for frames and for pages of 2 MiB.
//
// Touching 64 KiB for the first time, page by page, costs as much as decompressing a frame into it.
// So frames are slots of chunks of 2 MiB, which the kernel gives in one large page where it has
// one, and what a full cache evicts is what the next frame is put into. What is not in use goes
// back to the kernel: whole chunks, and single slots if too many are free; but for what is to be
// kept.
//
// Any thread but workers: it takes a lock, and the kernel may take its time.
#ifndef FAULTLINE_CACHE_FRAME_MEMORY_H
#define FAULTLINE_CACHE_FRAME_MEMORY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <urcu/list.h>

struct fl_chunk;

struct fl_buffer {
    uint8_t *bytes;         // NULL: none
    struct fl_chunk *chunk; // whose slot it is, or NULL
};

enum { FL_SPARE_HUGE_PAGES = 8 };

struct fl_frame_memory {
    pthread_mutex_t lock;        // covers the rest
    struct cds_list_head chunks; // with a free slot
    unsigned free_slots;         // that are resident
    // Changed under the lock, read by anyone:
    _Atomic uint64_t huge_pages; // of 2 MiB: all that there are, in use or not
    _Atomic uint64_t kept;       // so many of them stay
    uint64_t spares;
    void **spare; // pages of 2 MiB that are not in use; room for `kept` more than `few`
    void *few[FL_SPARE_HUGE_PAGES];
};

void fl_frame_memory_init(struct fl_frame_memory *memory);
// When all of it was put back.
void fl_frame_memory_fini(struct fl_frame_memory *memory);

// `pages` pages of 4 KiB, aligned to one (512 of them to 2 MiB); bytes is NULL without memory.
// *ret_zero (may be NULL): whether all of it is known to be zero.
struct fl_buffer fl_frame_memory_get(struct fl_frame_memory *memory, uint32_t pages,
                                     bool *ret_zero);
// From now on so many bytes, rounded down to 2 MiB, are not given back once they are there. Once.
// -ENOMEM.
int fl_frame_memory_keep(struct fl_frame_memory *memory, uint64_t bytes);
// Takes 2 MiB of that from the kernel, all of it touched: 1; 0 if all is there; or -ENOMEM.
int fl_frame_memory_prepare(struct fl_frame_memory *memory);
uint64_t fl_frame_memory_bytes(struct fl_frame_memory *memory); // in chunks, in use or not
// Any thread, never blocks: whether there is more than what is to be kept, so that what is put back
// may go.
bool fl_frame_memory_is_new(const struct fl_frame_memory *memory);

// A buffer without bytes is a no-op.
void fl_frame_memory_put(struct fl_frame_memory *memory, struct fl_buffer buffer, uint32_t pages);

#endif
