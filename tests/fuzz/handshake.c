// SPDX-License-Identifier: Apache-2.0
//
// The handshake's parser under mutated input: it never reads out of bounds, finds the end of a text
// in the same place however much of it has come, and what it accepts is a layout that can be
// served.
//
// usage: fuzz_handshake [ITERATIONS [SEED]], or linked with -fsanitize=fuzzer.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/vm/handshake.h"

// User addresses of x86-64 with five levels of page tables.
#define SPACE (1ULL << 56)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool condition, const char *what, const uint8_t *data, size_t size)
{
    if (condition)
        return;
    fprintf(stderr, "fuzz_handshake: not so: %s, for the %zu bytes:\n%.*s\n", what, size, (int)size,
            (const char *)data);
    abort();
}

static void check_layout(const struct fl_layout *layout, const uint8_t *data, size_t size)
{
    uint64_t pages = 0;
    expect(layout->regions > 0 && layout->regions <= FL_REGIONS_MAX, "1 to 64 regions", data, size);
    for (uint32_t i = 0; i < layout->regions; i++) {
        const struct fl_region *region = &layout->region[i];
        uint64_t found = 0;
        expect(region->bytes > 0 && region->bytes <= SPACE && region->base <= SPACE &&
                   region->base + region->bytes <= SPACE &&
                   region->offset + region->bytes <= 2 * SPACE,
               "it fits into an address space", data, size);
        expect(region->first_page == pages, "pages are numbered on", data, size);
        expect(fl_layout_page(layout, region->base + region->bytes - 1, &found) &&
                   found == pages + (region->bytes >> layout->page_shift) - 1,
               "the last byte is in the last page", data, size);
        expect(fl_layout_address(layout, pages) == region->base, "a page's address", data, size);
        pages += region->bytes >> layout->page_shift;
    }
    expect(layout->pages == pages, "the sum of the pages", data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    // An allocation of exactly this size: AddressSanitizer sees a read beyond.
    char *text = malloc(size ? size : 1);
    struct fl_layout layout = {0};
    const char *reason = NULL;
    if (!text)
        return 0;
    memcpy(text, data, size);
    long length = fl_handshake_length(text, size);
    expect(length >= -1000 && length <= (long)size, "a length within the text", data, size);
    if (length > 0) {
        expect(fl_handshake_length(text, (size_t)length) == length, "the same end", data, size);
        expect(fl_handshake_length(text, (size_t)length - 1) == 0, "no earlier end", data, size);
    }
    int error = fl_handshake_parse(text, size, &layout, NULL, &reason);
    expect((error == 0) == (reason == NULL), "a reason with each error", data, size);
    if (error == 0)
        check_layout(&layout, data, size);
    free(text);
    return 0;
}

#ifndef FAULTLINE_LIBFUZZER

enum { TEXT = 4096, MUTATIONS = 6 };

// clang-format off
static const char two_regions[] =
    "[{\"base_host_virt_addr\":2097152,\"size\":2097152,\"offset\":0,\"page_size\":2097152,\"page_size_kib\":2097152},"
    "{\"base_host_virt_addr\":8388608,\"size\":4194304,\"offset\":2097152,\"page_size\":2097152}]";
// clang-format on

static const char *const seeds[] = {
    "[{\"base_host_virt_addr\":140000000000000,\"size\":4096,\"offset\":0}]",
    "[{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":0,\"page_size_kib\":4096}]",
    two_regions,
    " [ {\"x\":[{\"]\\\"\":{}}],\"base_host_virt_addr\":8192,\"size\":8192,\"offset\":4096} ] ",
    "[]",
    "[{},{}]",
};

static const char *const pieces[] = {
    "[",
    "]",
    "{",
    "}",
    "\"",
    "\\",
    ",",
    ":",
    "0",
    "-1",
    "4096",
    "1e9",
    "0.5",
    "true",
    "null",
    "\xff",
    "\\u0000",
    "size",
    "2097152",
    "[[[[[[[[",
    "]]]]]]]]",
    "18446744073709551615",
    "9223372036854775807",
    "99999999999999999999",
    ",{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":0}",
    "\"page_size\":2097152",
};

// At the edges: of pages, of an address space, of signed and unsigned numbers.
static const char *const numbers[] = {
    "0",
    "1",
    "4096",
    "8192",
    "2097152",
    "4611686018427387904",
    "72057594037923840",
    "72057594037927936",
    "9223372036854771712",
    "18446744073709547520",
};

// splitmix64
static uint64_t dice(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static size_t insert(uint8_t *text, size_t size, size_t at, const char *piece)
{
    size_t length = strlen(piece);
    if (size + length > TEXT)
        return size;
    memmove(text + at + length, text + at, size - at);
    for (size_t i = 0; i < length; i++)
        text[at + i] = (uint8_t)piece[i];
    return size + length;
}

static bool digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

static size_t cut(uint8_t *text, size_t size, size_t at, size_t count)
{
    memmove(text + at, text + at + count, size - at - count);
    return size - count;
}

// The first number from `at` on becomes this one.
static size_t renumber(uint8_t *text, size_t size, size_t at, const char *number)
{
    while (at < size && !digit(text[at]))
        at++;
    size_t end = at;
    while (end < size && digit(text[end]))
        end++;
    return end > at ? insert(text, cut(text, size, at, end - at), at, number) : size;
}

static size_t mutate(uint8_t *text, size_t size, uint64_t *state)
{
    uint64_t what = dice(state);
    uint64_t which = what >> 8;
    size_t at = size ? (size_t)(dice(state) % size) : 0;
    if (size == 0)
        return 0;
    switch (what % 8) {
    case 0:
        text[at] = (uint8_t)which;
        return size;
    case 1:
        return cut(text, size, at, 1 + (size_t)which % (size - at < 8 ? size - at : 8));
    case 2:
        return which % 4 == 0 ? at : size;
    case 3:
        return insert(text, size, at, pieces[which % (sizeof(pieces) / sizeof(pieces[0]))]);
    default:
        return renumber(text, size, at, numbers[which % (sizeof(numbers) / sizeof(numbers[0]))]);
    }
}

static void one(uint64_t *state)
{
    uint8_t text[TEXT];
    const char *seed = seeds[dice(state) % (sizeof(seeds) / sizeof(seeds[0]))];
    size_t size = strlen(seed);
    insert(text, 0, 0, seed);
    for (uint64_t left = dice(state) % MUTATIONS; left > 0; left--)
        size = mutate(text, size, state);
    LLVMFuzzerTestOneInput(text, size);
}

int main(int argc, char **argv)
{
    uint64_t iterations = argc > 1 ? strtoull(argv[1], NULL, 0) : 300000;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    printf("%" PRIu64 " iterations from seed %" PRIu64 "\n", iterations, seed);
    for (uint64_t i = 0; i < iterations; i++) {
        uint64_t state = seed + i; // each can be repeated alone
        one(&state);
    }
    return 0;
}

#endif
