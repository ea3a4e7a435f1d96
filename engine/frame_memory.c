// SPDX-License-Identifier: Apache-2.0
#include "engine/frame_memory.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "snapshot/read.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(bytes, size) ((void)(bytes), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(bytes, size) ((void)(bytes), (void)(size))
#endif

enum { HUGE_PAGES = 512, SPARE_FRAMES = 256, SPARE_HUGES = 8 };
#define FRAME_BYTES ((size_t)FL_FRAME_PAGES * FL_PAGE_SIZE)
#define HUGE_BYTES ((size_t)HUGE_PAGES * FL_PAGE_SIZE)

// Written into the buffer itself.
struct fl_spare {
    struct fl_spare *next;
};

void fl_frame_memory_init(struct fl_frame_memory *memory)
{
    *memory = (struct fl_frame_memory){.frame = NULL};
    pthread_mutex_init(&memory->lock, NULL);
}

static void *pop(struct fl_spare **list, unsigned *count, size_t size)
{
    struct fl_spare *spare = *list;
    if (spare) {
        ASAN_UNPOISON_MEMORY_REGION(spare, size);
        *list = spare->next;
        --*count;
    }
    return spare;
}

static bool push(struct fl_spare **list, unsigned *count, unsigned most, void *bytes, size_t size)
{
    if (*count == most)
        return false;
    struct fl_spare *spare = bytes;
    spare->next = *list;
    *list = spare;
    ++*count;
    ASAN_POISON_MEMORY_REGION(spare, size); // who still uses it is found
    return true;
}

// Straight from the kernel, in one large page where it has one: 512 first touches would cost more
// than all of the decompression, and a page that serves one large copy is walked once.
static void *map_huge(void)
{
    int protection = PROT_READ | PROT_WRITE;
    uint8_t *map = mmap(NULL, 2 * HUGE_BYTES, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    size_t before = (HUGE_BYTES - (uintptr_t)map % HUGE_BYTES) % HUGE_BYTES;
    if (before > 0)
        munmap(map, before);
    munmap(map + before + HUGE_BYTES, HUGE_BYTES - before);
    madvise(map + before, HUGE_BYTES, MADV_HUGEPAGE);
    return map + before;
}

void fl_frame_memory_fini(struct fl_frame_memory *memory)
{
    void *bytes;
    pthread_mutex_lock(&memory->lock);
    while ((bytes = pop(&memory->frame, &memory->frames, FRAME_BYTES)))
        free(bytes);
    while ((bytes = pop(&memory->huge, &memory->huges, HUGE_BYTES)))
        munmap(bytes, HUGE_BYTES);
    pthread_mutex_unlock(&memory->lock);
    pthread_mutex_destroy(&memory->lock);
}

void *fl_frame_memory_get(struct fl_frame_memory *memory, uint32_t pages, bool *ret_zero)
{
    void *spare = NULL;
    pthread_mutex_lock(&memory->lock);
    if (pages == FL_FRAME_PAGES)
        spare = pop(&memory->frame, &memory->frames, FRAME_BYTES);
    else if (pages == HUGE_PAGES)
        spare = pop(&memory->huge, &memory->huges, HUGE_BYTES);
    pthread_mutex_unlock(&memory->lock);
    if (ret_zero)
        *ret_zero = !spare && pages == HUGE_PAGES;
    if (spare)
        return spare;
    return pages == HUGE_PAGES ? map_huge()
                               : aligned_alloc(FL_PAGE_SIZE, (size_t)pages * FL_PAGE_SIZE);
}

void fl_frame_memory_put(struct fl_frame_memory *memory, void *bytes, uint32_t pages)
{
    bool kept = false;
    if (!bytes)
        return;
    pthread_mutex_lock(&memory->lock);
    if (pages == FL_FRAME_PAGES)
        kept = push(&memory->frame, &memory->frames, SPARE_FRAMES, bytes, FRAME_BYTES);
    else if (pages == HUGE_PAGES)
        kept = push(&memory->huge, &memory->huges, SPARE_HUGES, bytes, HUGE_BYTES);
    pthread_mutex_unlock(&memory->lock);
    if (kept)
        return;
    if (pages == HUGE_PAGES)
        munmap(bytes, HUGE_BYTES);
    else
        free(bytes);
}
