// SPDX-License-Identifier: Apache-2.0
#include "engine/cache/frame_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/base/dontdump.h"
#include "engine/host/region.h"
#include "snapshot/read.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(bytes, size) ((void)(bytes), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(bytes, size) ((void)(bytes), (void)(size))
#endif

enum { SLOTS = FL_HUGE_PAGES / FL_FRAME_PAGES, FREE_SLOTS_MOST = 256 };
#define SLOT_BYTES ((size_t)FL_FRAME_PAGES * FL_PAGE_SIZE)
#define ALL_SLOTS UINT32_MAX

struct fl_chunk {
    struct cds_list_head link; // in `chunks` while it has a free slot
    uint8_t *base;
    uint32_t free;  // a bit a slot
    uint32_t given; // of these, those whose memory the kernel has back
};
_Static_assert(SLOTS == 32, "a bit a slot");

void fl_frame_memory_init(struct fl_frame_memory *memory)
{
    *memory = (struct fl_frame_memory){.spares = 0, .spare = memory->few};
    pthread_mutex_init(&memory->lock, NULL);
    CDS_INIT_LIST_HEAD(&memory->chunks);
}

// --- pages of 2 MiB ---

static void *map_huge(void)
{
    uint8_t *map = fl_dontdump_map(2 * FL_HUGE_BYTES);
    if (!map)
        return NULL;
    size_t before = (FL_HUGE_BYTES - (uintptr_t)map % FL_HUGE_BYTES) % FL_HUGE_BYTES;
    if (before > 0)
        munmap(map, before);
    munmap(map + before + FL_HUGE_BYTES, FL_HUGE_BYTES - before);
    madvise(map + before, FL_HUGE_BYTES, MADV_HUGEPAGE);
    return map + before;
}

static void unmap_huge(void *bytes)
{
    // The addresses may be another mapping's next.
    ASAN_UNPOISON_MEMORY_REGION(bytes, FL_HUGE_BYTES);
    munmap(bytes, FL_HUGE_BYTES);
}

// With the lock held.
static void *take_spare(struct fl_frame_memory *memory)
{
    if (memory->spares == 0)
        return NULL;
    void *bytes = memory->spare[--memory->spares];
    ASAN_UNPOISON_MEMORY_REGION(bytes, FL_HUGE_BYTES);
    return bytes;
}

// With the lock held. False: there are enough.
static bool keep_spare(struct fl_frame_memory *memory, void *bytes)
{
    if (memory->spares >= FL_SPARE_HUGE_PAGES && memory->huge_pages > memory->kept) {
        memory->huge_pages--;
        return false;
    }
    ASAN_POISON_MEMORY_REGION(bytes, FL_HUGE_BYTES); // a use of it is found
    memory->spare[memory->spares++] = bytes;
    return true;
}

static void count_huge(struct fl_frame_memory *memory, uint64_t change)
{
    pthread_mutex_lock(&memory->lock);
    memory->huge_pages += change;
    pthread_mutex_unlock(&memory->lock);
}

static struct fl_buffer get_huge(struct fl_frame_memory *memory, bool *ret_zero)
{
    pthread_mutex_lock(&memory->lock);
    void *bytes = take_spare(memory);
    memory->huge_pages += !bytes;
    pthread_mutex_unlock(&memory->lock);
    *ret_zero = !bytes;
    if (bytes || (bytes = map_huge()))
        return (struct fl_buffer){.bytes = bytes};
    count_huge(memory, -UINT64_C(1));
    return (struct fl_buffer){.bytes = NULL};
}

static void put_huge(struct fl_frame_memory *memory, void *bytes)
{
    pthread_mutex_lock(&memory->lock);
    bool kept = keep_spare(memory, bytes);
    pthread_mutex_unlock(&memory->lock);
    if (!kept)
        unmap_huge(bytes);
}

int fl_frame_memory_keep(struct fl_frame_memory *memory, uint64_t bytes)
{
    uint64_t kept = bytes / FL_HUGE_BYTES;
    void **spare = calloc(kept + FL_SPARE_HUGE_PAGES, sizeof(*spare));
    if (!spare)
        return -ENOMEM;
    pthread_mutex_lock(&memory->lock);
    memcpy(spare, memory->spare, memory->spares * sizeof(*spare));
    memory->spare = spare;
    memory->kept = kept;
    pthread_mutex_unlock(&memory->lock);
    return 0;
}

// Counted before it is there: no thread takes more meanwhile.
int fl_frame_memory_prepare(struct fl_frame_memory *memory)
{
    pthread_mutex_lock(&memory->lock);
    bool wanted = memory->huge_pages < memory->kept;
    memory->huge_pages += wanted;
    pthread_mutex_unlock(&memory->lock);
    if (!wanted)
        return 0;
    void *bytes = map_huge();
    if (bytes && madvise(bytes, FL_HUGE_BYTES, MADV_POPULATE_WRITE) == 0) {
        put_huge(memory, bytes);
        return 1;
    }
    if (bytes)
        unmap_huge(bytes);
    count_huge(memory, -UINT64_C(1));
    return -ENOMEM;
}

uint64_t fl_frame_memory_bytes(struct fl_frame_memory *memory)
{
    pthread_mutex_lock(&memory->lock);
    uint64_t bytes = memory->huge_pages * FL_HUGE_BYTES;
    pthread_mutex_unlock(&memory->lock);
    return bytes;
}

bool fl_frame_memory_is_new(const struct fl_frame_memory *memory)
{
    return atomic_load(&memory->huge_pages) > atomic_load(&memory->kept);
}

// --- slots ---

// With the lock held. In the chunk that has had a free one for longest; resident ones first.
static struct fl_buffer take_slot(struct fl_frame_memory *memory)
{
    if (cds_list_empty(&memory->chunks))
        return (struct fl_buffer){.bytes = NULL};
    struct fl_chunk *chunk = cds_list_first_entry(&memory->chunks, struct fl_chunk, link);
    uint32_t resident = chunk->free & ~chunk->given;
    unsigned slot = (unsigned)__builtin_ctz(resident ? resident : chunk->free);
    chunk->free &= ~(1U << slot);
    chunk->given &= ~(1U << slot);
    memory->free_slots -= resident != 0;
    if (chunk->free == 0)
        cds_list_del(&chunk->link);
    uint8_t *bytes = chunk->base + slot * SLOT_BYTES;
    ASAN_UNPOISON_MEMORY_REGION(bytes, SLOT_BYTES);
    return (struct fl_buffer){.bytes = bytes, .chunk = chunk};
}

static struct fl_chunk *new_chunk(struct fl_frame_memory *memory)
{
    bool zero;
    struct fl_chunk *chunk = malloc(sizeof(*chunk));
    struct fl_buffer huge = chunk ? get_huge(memory, &zero) : (struct fl_buffer){.bytes = NULL};
    if (!huge.bytes) {
        free(chunk);
        return NULL;
    }
    *chunk = (struct fl_chunk){.base = huge.bytes, .free = ALL_SLOTS};
    ASAN_POISON_MEMORY_REGION(chunk->base, FL_HUGE_BYTES);
    return chunk;
}

static struct fl_buffer get_slot(struct fl_frame_memory *memory)
{
    pthread_mutex_lock(&memory->lock);
    struct fl_buffer buffer = take_slot(memory);
    pthread_mutex_unlock(&memory->lock);
    if (buffer.bytes)
        return buffer;
    struct fl_chunk *chunk = new_chunk(memory);
    if (!chunk)
        return buffer;
    pthread_mutex_lock(&memory->lock);
    cds_list_add(&chunk->link, &memory->chunks);
    memory->free_slots += SLOTS;
    buffer = take_slot(memory);
    pthread_mutex_unlock(&memory->lock);
    return buffer;
}

// With the lock held: the chunk, which is not used any more, is out of the lists.
static bool retire_chunk(struct fl_frame_memory *memory, struct fl_chunk *chunk)
{
    if (chunk->free != ALL_SLOTS)
        return false;
    cds_list_del(&chunk->link);
    memory->free_slots -= SLOTS - (unsigned)__builtin_popcount(chunk->given);
    return true;
}

// The kernel gets back what would be too much to keep, before a thread can have it again.
static void put_slot(struct fl_frame_memory *memory, struct fl_buffer buffer)
{
    struct fl_chunk *chunk = buffer.chunk;
    uint32_t bit = 1U << (unsigned)((size_t)(buffer.bytes - chunk->base) / SLOT_BYTES);
    pthread_mutex_lock(&memory->lock);
    bool give = memory->free_slots >= FREE_SLOTS_MOST && memory->huge_pages > memory->kept &&
                (chunk->free | bit) != ALL_SLOTS &&
                madvise(buffer.bytes, SLOT_BYTES, MADV_DONTNEED) == 0;
    ASAN_POISON_MEMORY_REGION(buffer.bytes, SLOT_BYTES);
    if (chunk->free == 0)
        cds_list_add_tail(&chunk->link, &memory->chunks);
    chunk->free |= bit;
    chunk->given |= give ? bit : 0;
    memory->free_slots += !give;
    bool unused = retire_chunk(memory, chunk);
    pthread_mutex_unlock(&memory->lock);
    if (unused) {
        put_huge(memory, chunk->base);
        free(chunk);
    }
}

// --- both ---

static bool is_slot(uint32_t pages)
{
    return pages > FL_FRAME_PAGES / 2 && pages <= FL_FRAME_PAGES;
}

struct fl_buffer fl_frame_memory_get(struct fl_frame_memory *memory, uint32_t pages, bool *ret_zero)
{
    bool zero = false;
    struct fl_buffer buffer;
    if (is_slot(pages))
        buffer = get_slot(memory);
    else if (pages == FL_HUGE_PAGES)
        buffer = get_huge(memory, &zero);
    else
        buffer = (struct fl_buffer){.bytes = fl_dontdump_alloc((size_t)pages * FL_PAGE_SIZE)};
    if (ret_zero)
        *ret_zero = zero;
    return buffer;
}

void fl_frame_memory_put(struct fl_frame_memory *memory, struct fl_buffer buffer, uint32_t pages)
{
    if (!buffer.bytes)
        return;
    if (buffer.chunk)
        put_slot(memory, buffer);
    else if (pages == FL_HUGE_PAGES)
        put_huge(memory, buffer.bytes);
    else
        fl_dontdump_free(buffer.bytes);
}

void fl_frame_memory_fini(struct fl_frame_memory *memory)
{
    pthread_mutex_lock(&memory->lock);
    void *bytes;
    while ((bytes = take_spare(memory)))
        unmap_huge(bytes);
    pthread_mutex_unlock(&memory->lock);
    pthread_mutex_destroy(&memory->lock);
    if (memory->spare != memory->few)
        free(memory->spare);
}
