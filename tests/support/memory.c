// SPDX-License-Identifier: Apache-2.0
#include "tests/support/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { RUN_MAX = 24, WORDS = PAGE / 8 };

static void need(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "test support: %s: %s\n", what, strerror(errno));
    abort();
}

// splitmix64
uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

uint32_t *random_order(uint32_t count, uint64_t seed)
{
    uint32_t *order = malloc(sizeof(*order) * (count ? count : 1));
    need(order != NULL, "malloc");
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    for (uint32_t i = count; i > 1; i--) {
        uint32_t k = (uint32_t)(random_next(&seed) % i);
        uint32_t other = order[i - 1];
        order[i - 1] = order[k];
        order[k] = other;
    }
    return order;
}

static void noise(uint64_t *page, uint64_t number)
{
    for (unsigned i = 0; i < WORDS; i++)
        page[i] = random_next(&number) | 1;
}

static void text(uint64_t *page, uint64_t number)
{
    char *to = (char *)page;
    for (unsigned i = 0; i < PAGE / 32; i++) {
        char line[64];
        snprintf(line, sizeof(line), "line %6u of page %012llx\n", i,
                 (unsigned long long)(number & 0xffffffffffffULL));
        memcpy(to + (size_t)i * 32, line, 32);
    }
}

static int create(const char *path, uint64_t bytes)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    need(fd >= 0, path);
    need(ftruncate(fd, (off_t)bytes) == 0, path);
    return fd;
}

static void finish(struct memory *memory, int fd, uint64_t bytes)
{
    void *data = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    need(data != MAP_FAILED, "mmap of the memory file");
    close(fd);
    memory->bytes = bytes;
    memory->data = data;
}

static void put(int fd, uint64_t page, const uint64_t *words, uint64_t bytes)
{
    uint64_t left = bytes - page * PAGE;
    size_t length = left < PAGE ? (size_t)left : PAGE;
    need(pwrite(fd, words, length, (off_t)(page * PAGE)) == (ssize_t)length, "pwrite");
}

enum kind { HOLE, ZEROS, NOISE, TEXT, SAME, KINDS };

void memory_make(struct memory *memory, const char *path, uint64_t bytes, uint64_t seed)
{
    uint64_t words[WORDS];
    uint64_t pages = (bytes + PAGE - 1) / PAGE;
    uint64_t left = 0;
    enum kind kind = HOLE;
    int fd = create(path, bytes);
    for (uint64_t page = 0; page < pages; page++, left--) {
        if (left == 0) {
            kind = (enum kind)(random_next(&seed) % KINDS);
            left = 1 + random_next(&seed) % RUN_MAX;
        }
        if (kind == HOLE)
            continue;
        memset(words, 0, sizeof(words));
        if (kind == NOISE)
            noise(words, seed + page);
        else if (kind == TEXT)
            text(words, seed + page);
        else if (kind == SAME)
            text(words, page % 3);
        put(fd, page, words, bytes);
    }
    finish(memory, fd, bytes);
}

void memory_make_distinct(struct memory *memory, const char *path, uint64_t bytes, uint64_t seed)
{
    uint64_t words[WORDS];
    int fd = create(path, bytes);
    for (uint64_t page = 0; page < (bytes + PAGE - 1) / PAGE; page++) {
        noise(words, seed * 0x10001 + page);
        put(fd, page, words, bytes);
    }
    finish(memory, fd, bytes);
}

void memory_make_empty(struct memory *memory, const char *path, uint64_t bytes)
{
    finish(memory, create(path, bytes), bytes);
}

void memory_free(struct memory *memory)
{
    if (memory->data)
        munmap(memory->data, memory->bytes);
    *memory = (struct memory){0};
}

bool all_zero(const uint8_t *bytes, uint64_t length)
{
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

bool memory_same(const struct memory *memory, uint64_t offset, const uint8_t *bytes,
                 uint64_t length)
{
    uint64_t there = offset < memory->bytes ? memory->bytes - offset : 0;
    there = there < length ? there : length;
    return (there == 0 || memcmp(memory->data + offset, bytes, there) == 0) &&
           all_zero(bytes + there, length - there);
}

unsigned huge_pages_free(void)
{
    char line[128];
    unsigned count = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof(line), file))
        sscanf(line, "HugePages_Free: %u", &count);
    if (file)
        fclose(file);
    return count;
}
