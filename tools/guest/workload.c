// SPDX-License-Identifier: Apache-2.0
// What the guest runs: fills memory with content that follows from a seed, then every second checks
// all of it and says so on the console, for ever or as often as it is told. Part random, part compressible, part duplicate pages, as
// the memory of real guests is.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE_SIZE = 4096, PAGE_WORDS = PAGE_SIZE / 8, DISTINCT_DUPLICATES = 61, PATTERN_WORDS = 16 };

struct check {
    uint64_t found;    // checksum of what is in memory
    uint64_t expected; // checksum of what the seed says
    size_t bad_pages;
    size_t first_bad;
};

// The finaliser of SplitMix64 (public domain): every bit of x moves every bit of the result.
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t expected_word(uint64_t seed, size_t page, size_t word)
{
    uint64_t key = mix(seed);
    switch (page % 8) {
    case 0:
    case 1: // the same few pages again and again
        return mix(key ^ (page % DISTINCT_DUPLICATES) << 32 ^ word);
    case 2:
    case 3:
    case 4: // its own pattern, repeated through the page
        return mix(key + page * PAGE_WORDS + word % PATTERN_WORDS);
    default:
        return mix(key + page * PAGE_WORDS + word);
    }
}

static void fill(uint64_t *memory, size_t pages, uint64_t seed)
{
    for (size_t page = 0; page < pages; page++)
        for (size_t word = 0; word < PAGE_WORDS; word++)
            memory[page * PAGE_WORDS + word] = expected_word(seed, page, word);
}

static uint64_t fold(uint64_t sum, uint64_t word)
{
    return (sum ^ word) * UINT64_C(0x100000001b3);
}

static void check_page(const uint64_t *memory, size_t page, uint64_t seed, struct check *check)
{
    uint64_t difference = 0;
    for (size_t word = 0; word < PAGE_WORDS; word++) {
        uint64_t found = memory[page * PAGE_WORDS + word];
        uint64_t expected = expected_word(seed, page, word);
        check->found = fold(check->found, found);
        check->expected = fold(check->expected, expected);
        difference |= found ^ expected;
    }
    if (difference != 0 && check->bad_pages++ == 0)
        check->first_bad = page;
}

static void report(unsigned long tick, size_t pages, const struct check *check)
{
    if (check->bad_pages == 0 && check->found == check->expected)
        printf("tick %lu checksum %016llx OK, %zu pages\n", tick, (unsigned long long)check->found,
               pages);
    else
        printf("tick %lu checksum %016llx BAD, expected %016llx, %zu wrong pages from page %zu\n",
               tick, (unsigned long long)check->found, (unsigned long long)check->expected,
               check->bad_pages, check->first_bad);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const struct timespec second = {.tv_sec = 1};
    size_t pages = (argc > 1 ? strtoul(argv[1], NULL, 10) : 96) * (1024 * 1024 / PAGE_SIZE);
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    unsigned long ticks = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    uint64_t *memory =
        mmap(NULL, pages * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("workload: no memory");
        return 1;
    }
    fill(memory, pages, seed);
    for (unsigned long tick = 1; ticks == 0 || tick <= ticks; tick++) {
        struct check check = {.found = 0};
        for (size_t page = 0; page < pages; page++)
            check_page(memory, page, seed, &check);
        report(tick, pages, &check);
        nanosleep(&second, NULL);
    }
    return 0;
}
