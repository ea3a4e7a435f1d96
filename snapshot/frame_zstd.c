// SPDX-License-Identifier: Apache-2.0
//
// A decoder in memory that it is given (ZSTD_initStaticDCtx) cannot allocate, whatever a frame
// says: not for a window, a dictionary, or one of the formats of old that Debian's library knows.
// That function is among those which zstd calls experimental; it has been there since 1.3.
#define ZSTD_STATIC_LINKING_ONLY
#include "snapshot/frame_zstd.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <zstd.h>

static pthread_key_t key;
static int key_error;
static size_t room; // of a decoder

static void free_decoder(void *memory)
{
    munmap(memory, room);
}

static void make_key(void)
{
    room = ZSTD_estimateDCtxSize();
    key_error = pthread_key_create(&key, free_decoder);
}

// Its memory holds a guest's bytes, so it is left out of core dumps.
static void *make_decoder(void)
{
    void *memory = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, room, MADV_DONTDUMP);
    if (ZSTD_initStaticDCtx(memory, room) == memory && pthread_setspecific(key, memory) == 0)
        return memory;
    munmap(memory, room);
    return NULL;
}

// The decoder is at the beginning of its memory.
static ZSTD_DCtx *own_decoder(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_key);
    if (key_error)
        return NULL;
    void *memory = pthread_getspecific(key);
    return memory ? memory : make_decoder();
}

// Only the format of today; one frame, not several or one that is to be skipped; and of a size
// that it says itself.
static bool is_frame(const void *stored, size_t stored_bytes, size_t raw)
{
    uint32_t magic;
    if (stored_bytes < sizeof(magic))
        return false;
    memcpy(&magic, stored, sizeof(magic));
    return magic == ZSTD_MAGICNUMBER && ZSTD_getFrameContentSize(stored, stored_bytes) == raw &&
           ZSTD_findFrameCompressedSize(stored, stored_bytes) == stored_bytes;
}

int fl_zstd_decode(const void *stored, size_t stored_bytes, void *buf, size_t raw)
{
    if (!is_frame(stored, stored_bytes, raw))
        return -EBADMSG;
    ZSTD_DCtx *decoder = own_decoder();
    if (!decoder)
        return -ENOMEM;
    return ZSTD_decompressDCtx(decoder, buf, raw, stored, stored_bytes) == raw ? 0 : -EBADMSG;
}
