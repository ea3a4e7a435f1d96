// SPDX-License-Identifier: Apache-2.0
//
// Guest memory files for tests, and what must be in each page. Failures end the program.
#ifndef FAULTLINE_TESTS_SUPPORT_MEMORY_H
#define FAULTLINE_TESTS_SUPPORT_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

enum { PAGE = 4096, HUGE = 2 << 20 };

struct memory {
    uint64_t bytes;
    uint8_t *data; // the file, mapped read-only
};

// A file of a guest's kinds of pages, in runs: holes, zeros, noise, compressible, duplicates.
void memory_make(struct memory *memory, const char *path, uint64_t bytes, uint64_t seed);
// Pages of noise that all differ: none is zero, none is shared.
void memory_make_distinct(struct memory *memory, const char *path, uint64_t bytes, uint64_t seed);
// All hole.
void memory_make_empty(struct memory *memory, const char *path, uint64_t bytes);
void memory_free(struct memory *memory);

// Whether these bytes are those of the file from this offset on (zeros beyond its end).
bool memory_same(const struct memory *memory, uint64_t offset, const uint8_t *bytes,
                 uint64_t length);
bool all_zero(const uint8_t *bytes, uint64_t length);

// Huge pages of 2 MiB that nobody has.
unsigned huge_pages_free(void);

uint64_t random_next(uint64_t *state);
// A permutation of 0..count-1; to be freed.
uint32_t *random_order(uint32_t count, uint64_t seed);

#endif
