// SPDX-License-Identifier: Apache-2.0
//
// Files of a store, and changes to their bytes such as accidents and enemies make. A run is
// repeatable by its seed.
#ifndef FAULTLINE_TESTS_FUZZ_MUTATE_H
#define FAULTLINE_TESTS_FUZZ_MUTATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/temp.h"

enum { GROWTH_MAX = 4096 };

// A file of the store, as it was packed and as it is now.
struct file {
    char path[2 * TEST_PATH];
    uint8_t *good;
    size_t good_bytes;
    uint8_t *bytes; // room for GROWTH_MAX more
    size_t used;
};

extern uint64_t fuzz_current; // the seed of this iteration: it can be repeated alone

_Noreturn void end(const char *what);        // says what is not so, with the seed
void need(bool condition, const char *what); // ends unless it is

// The only file of this pattern within the directory.
void file_load(const struct temp *temp, const char *pattern, struct file *file);
void file_free(struct file *file);
// A new file of that name.
void file_save(const char *path, const uint8_t *bytes, size_t used);
// One change of file->bytes, or of their number.
void file_change(uint64_t *state, struct file *file);

#endif
