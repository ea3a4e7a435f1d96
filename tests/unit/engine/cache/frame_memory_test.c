// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/cache/frame_memory.h"
#include "snapshot/read.h"

enum { MOST = 700, HUGE_PAGES = 512, ROUNDS = 20000, CHUNK_SLOTS = HUGE_PAGES / FL_FRAME_PAGES };

struct held {
    struct fl_buffer buffer;
    uint32_t pages;
    uint32_t mark;
};

static struct fl_frame_memory memory;
static struct held held[MOST];

static void mark(const struct held *one)
{
    for (uint32_t page = 0; page < one->pages; page++)
        memset(one->buffer.bytes + (size_t)page * FL_PAGE_SIZE, (int)(one->mark & 0xff), 64);
}

static void check(const struct held *one)
{
    for (uint32_t page = 0; page < one->pages; page++)
        cr_assert_eq(one->buffer.bytes[(size_t)page * FL_PAGE_SIZE + 63], one->mark & 0xff,
                     "somebody else has it too");
}

static struct held get(uint32_t pages, uint32_t number)
{
    bool zero;
    struct held one = {.pages = pages, .mark = number};
    one.buffer = fl_frame_memory_get(&memory, pages, &zero);
    cr_assert_not_null(one.buffer.bytes);
    cr_assert_eq((uintptr_t)one.buffer.bytes % FL_PAGE_SIZE, 0);
    for (size_t i = 0; zero && i < (size_t)pages * FL_PAGE_SIZE; i += 512)
        cr_assert_eq(one.buffer.bytes[i], 0, "it is not zero");
    mark(&one);
    return one;
}

static void put(struct held *one)
{
    check(one);
    fl_frame_memory_put(&memory, one->buffer, one->pages);
    *one = (struct held){.pages = 0};
}

Test(frame_memory, nobody_has_what_another_has)
{
    static const uint32_t sizes[] = {FL_FRAME_PAGES, FL_FRAME_PAGES, FL_FRAME_PAGES, 1, 9, 17,
                                     HUGE_PAGES};
    srand(1);
    fl_frame_memory_init(&memory);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct held *one = &held[(unsigned)rand() % (MOST / 10)];
        if (one->pages)
            put(one);
        else
            *one = get(sizes[(unsigned)rand() % (sizeof(sizes) / sizeof(sizes[0]))], i);
    }
    for (unsigned i = 0; i < MOST; i++) {
        if (held[i].pages)
            put(&held[i]);
    }
    fl_frame_memory_fini(&memory);
}

static size_t resident(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    cr_assert(file && fscanf(file, "%*u %lu", &pages) == 1); // NOLINT(cert-err34-c)
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

// One frame of each chunk stays: the rest goes back to the kernel but for what is kept for the next
// frames (and, on a sanitized build, its shadow).
Test(frame_memory, a_frame_does_not_hold_its_whole_chunk)
{
    enum { CHUNKS = 64, FRAMES = CHUNKS * CHUNK_SLOTS, KEPT_MIB = 16 + 16 + 24 };
    static struct held frame[FRAMES];
    fl_frame_memory_init(&memory);
    size_t before = resident();
    for (uint32_t i = 0; i < FRAMES; i++)
        frame[i] = get(FL_FRAME_PAGES, i);
    cr_assert_geq(resident(), before + ((size_t)100 << 20), "nothing is measured");
    for (uint32_t i = 0; i < FRAMES; i++) {
        if (i % CHUNK_SLOTS != 7)
            put(&frame[i]);
    }
    size_t used = (size_t)CHUNKS * FL_FRAME_PAGES * FL_PAGE_SIZE;
    cr_assert_leq(resident(), before + used + ((size_t)KEPT_MIB << 20));
    for (uint32_t i = 0; i < FRAMES; i++) {
        if (i % CHUNK_SLOTS != 7)
            frame[i] = get(FL_FRAME_PAGES, i + 1); // into the same chunks
    }
    for (uint32_t i = 0; i < FRAMES; i++)
        put(&frame[i]);
    cr_assert_leq(resident(), before + ((size_t)KEPT_MIB << 20));
    fl_frame_memory_fini(&memory);
}

// What is taken at once is there, serves whoever comes, and stays when nobody uses it any more;
// what goes beyond it does not.
Test(frame_memory, what_is_prepared_stays)
{
    enum { KEPT = 40, FRAMES = (KEPT + 30) * CHUNK_SLOTS };
    const uint64_t kept = (uint64_t)KEPT * HUGE_PAGES * FL_PAGE_SIZE;
    static struct held frame[FRAMES];
    fl_frame_memory_init(&memory);
    frame[0] = get(FL_FRAME_PAGES, 0); // somebody is there already
    cr_assert_eq(fl_frame_memory_keep(&memory, kept + FL_PAGE_SIZE), 0);
    size_t before = resident();
    while (fl_frame_memory_prepare(&memory) > 0) {
    }
    cr_assert_eq(fl_frame_memory_bytes(&memory), kept);
    cr_assert_geq(resident(), before + kept / 10 * 9);
    for (uint32_t i = 1; i < FRAMES; i++)
        frame[i] = get(FL_FRAME_PAGES, i);
    cr_assert_gt(fl_frame_memory_bytes(&memory), kept);
    cr_assert_eq(fl_frame_memory_prepare(&memory), 0);
    for (uint32_t i = 0; i < FRAMES; i++)
        put(&frame[i]);
    cr_assert_eq(fl_frame_memory_bytes(&memory), kept);
    cr_assert_geq(resident(), before + kept / 10 * 9);
    fl_frame_memory_fini(&memory);
}
