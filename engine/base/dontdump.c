// SPDX-License-Identifier: Apache-2.0
#include "engine/base/dontdump.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <jemalloc/jemalloc.h>

#include "snapshot/read.h"

// Weak: jemalloc is linked into the command only, and not into its sanitized builds.
#pragma weak mallctl
#pragma weak mallocx
#pragma weak dallocx

void fl_dontdump(void *pages, size_t bytes)
{
    madvise(pages, bytes, MADV_DONTDUMP);
}

void *fl_dontdump_map(size_t bytes)
{
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    fl_dontdump(map, bytes);
    return map;
}

void fl_dontdump_unmap(void *pages, size_t bytes)
{
    if (pages)
        munmap(pages, bytes);
}

// --- the arena ---

// Of a mapping that is too large by `alignment`, the aligned part.
static void *map_extent(extent_hooks_t *hooks, void *wanted, size_t size, size_t alignment,
                        bool *zero, bool *commit, unsigned arena)
{
    (void)hooks;
    (void)arena;
    if (wanted)
        return NULL;
    uint8_t *map = fl_dontdump_map(size + alignment);
    if (!map)
        return NULL;
    size_t before = (alignment - (uintptr_t)map % alignment) % alignment;
    if (before > 0)
        munmap(map, before);
    munmap(map + before + size, alignment - before);
    *zero = true;
    *commit = true;
    return map + before;
}

// False, of all of these, means that it was done.
static bool unmap_extent(extent_hooks_t *hooks, void *pages, size_t size, bool committed,
                         unsigned arena)
{
    (void)hooks;
    (void)committed;
    (void)arena;
    return munmap(pages, size) != 0;
}

static void destroy_extent(extent_hooks_t *hooks, void *pages, size_t size, bool committed,
                           unsigned arena)
{
    unmap_extent(hooks, pages, size, committed, arena);
}

static bool purge_extent(extent_hooks_t *hooks, void *pages, size_t size, size_t offset,
                         size_t length, unsigned arena)
{
    (void)hooks;
    (void)size;
    (void)arena;
    return madvise((uint8_t *)pages + offset, length, MADV_DONTNEED) != 0;
}

static bool split_extent(extent_hooks_t *hooks, void *pages, size_t size, size_t left, size_t right,
                         bool committed, unsigned arena)
{
    (void)hooks;
    (void)pages;
    (void)size;
    (void)left;
    (void)right;
    (void)committed;
    (void)arena;
    return false;
}

static bool merge_extents(extent_hooks_t *hooks, void *left, size_t left_size, void *right,
                          size_t right_size, bool committed, unsigned arena)
{
    (void)hooks;
    (void)left;
    (void)left_size;
    (void)right;
    (void)right_size;
    (void)committed;
    (void)arena;
    return false;
}

static extent_hooks_t hooks = {.alloc = map_extent,
                               .dalloc = unmap_extent,
                               .destroy = destroy_extent,
                               .purge_forced = purge_extent,
                               .split = split_extent,
                               .merge = merge_extents};
static unsigned arena_index; // 0: there is none, as that is jemalloc's own first one

static void make_arena(void)
{
    extent_hooks_t *ours = &hooks;
    size_t size = sizeof(arena_index);
    if (!mallctl || !mallocx || !dallocx ||
        mallctl("arenas.create", &arena_index, &size, &ours, sizeof(ours)) != 0)
        arena_index = 0;
}

static bool has_arena(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_arena);
    return arena_index != 0;
}

void *fl_dontdump_alloc(size_t bytes)
{
    if (!has_arena())
        return aligned_alloc(FL_PAGE_SIZE, bytes);
    return mallocx(bytes,
                   MALLOCX_ALIGN(FL_PAGE_SIZE) | MALLOCX_ARENA(arena_index) | MALLOCX_TCACHE_NONE);
}

void fl_dontdump_free(void *pages)
{
    if (has_arena() && pages)
        dallocx(pages, MALLOCX_TCACHE_NONE);
    else
        free(pages);
}
