// SPDX-License-Identifier: Apache-2.0
#include "snapshot/scratch.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LEAST ((size_t)64 << 10) // what a frame of the packer's takes at most

struct scratch {
    void *memory;
    size_t bytes;
};

static pthread_key_t key;
static int key_error;

static void free_scratch(void *argument)
{
    struct scratch *scratch = argument;
    if (scratch->memory)
        munmap(scratch->memory, scratch->bytes);
    free(scratch);
}

static void make_key(void)
{
    key_error = pthread_key_create(&key, free_scratch);
}

static struct scratch *own(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_key);
    if (key_error)
        return NULL;
    struct scratch *scratch = pthread_getspecific(key);
    if (scratch)
        return scratch;
    scratch = calloc(1, sizeof(*scratch));
    if (scratch && pthread_setspecific(key, scratch) != 0) {
        free(scratch);
        scratch = NULL;
    }
    return scratch;
}

void *fl_thread_scratch(size_t bytes)
{
    struct scratch *scratch = own();
    if (!scratch || bytes <= scratch->bytes)
        return scratch ? scratch->memory : NULL;
    size_t room = bytes > LEAST ? bytes : LEAST;
    void *memory = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, room, MADV_DONTDUMP);
    if (scratch->memory)
        munmap(scratch->memory, scratch->bytes);
    *scratch = (struct scratch){.memory = memory, .bytes = room};
    return memory;
}
