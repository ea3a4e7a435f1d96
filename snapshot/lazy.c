// SPDX-License-Identifier: Apache-2.0
#include "snapshot/lazy.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "snapshot/io.h"

// A smaller table is not worth a mapping of its own: a process may have some 65,000 mappings.
#define MAPPED_FROM ((size_t)256 << 10)

// A thread holds it while it copies a piece into any table, which takes microseconds.
static pthread_mutex_t copying = PTHREAD_MUTEX_INITIALIZER;

// Returns address space that takes memory only where a piece is put.
static void *reserve(size_t bytes)
{
    if (bytes < MAPPED_FROM)
        return malloc(bytes ? bytes : 1);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, bytes, MADV_DONTDUMP);
    return memory;
}

int fl_lazy_init(struct fl_lazy *lazy, size_t bytes, size_t piece_bytes, enum fl_piece_state state)
{
    uint64_t pieces = (bytes + piece_bytes - 1) / piece_bytes;
    *lazy = (struct fl_lazy){.bytes = bytes, .piece_bytes = piece_bytes, .pieces = pieces};
    lazy->state = malloc(pieces ? pieces : 1);
    lazy->memory = lazy->state ? reserve(bytes) : NULL;
    if (!lazy->memory) {
        free((void *)lazy->state);
        lazy->state = NULL;
        return -ENOMEM;
    }
    memset((void *)lazy->state, (int)state, pieces);
    return 0;
}

void fl_lazy_init_whole(struct fl_lazy *lazy, void *memory, size_t bytes)
{
    *lazy = (struct fl_lazy){.memory = memory, .bytes = bytes, .piece_bytes = bytes, .pieces = 1};
}

void fl_lazy_fini(struct fl_lazy *lazy)
{
    bool mapped = !lazy->state || lazy->bytes >= MAPPED_FROM;
    if (mapped)
        fl_unmap(lazy->memory, lazy->bytes);
    else
        free(lazy->memory);
    free((void *)lazy->state);
    lazy->memory = NULL;
    lazy->state = NULL;
}

size_t fl_lazy_piece_bytes(const struct fl_lazy *lazy, uint64_t piece)
{
    size_t left = lazy->bytes - piece * lazy->piece_bytes;
    return left < lazy->piece_bytes ? left : lazy->piece_bytes;
}

void fl_lazy_set_unread(struct fl_lazy *lazy, uint64_t piece)
{
    atomic_store_explicit(&lazy->state[piece], FL_PIECE_UNREAD, memory_order_relaxed);
}

void fl_lazy_put(const struct fl_lazy *lazy, uint64_t piece, const void *bytes)
{
    pthread_mutex_lock(&copying);
    if (fl_lazy_state(lazy, piece) == FL_PIECE_UNREAD) {
        memcpy((uint8_t *)lazy->memory + piece * lazy->piece_bytes, bytes,
               fl_lazy_piece_bytes(lazy, piece));
        // Release pairs with the acquire of fl_lazy_state.
        atomic_store_explicit(&lazy->state[piece], FL_PIECE_THERE, memory_order_release);
    }
    pthread_mutex_unlock(&copying);
}
