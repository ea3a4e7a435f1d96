// SPDX-License-Identifier: Apache-2.0
//
// The memory file of the chaos and stall runs. The run's seed and a page's number decide what is in
// the page, so that a client knows what it must see without the file.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_IMAGE_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_IMAGE_H

#include <stdint.h>

enum { CHAOS_PAGE = 4096, CHAOS_WORDS = CHAOS_PAGE / 8 };

// Fills in a page: zeros, bytes that several pages share, text that compresses, or noise. Pages of
// one kind come in short runs.
void chaos_image_page(uint64_t seed, uint32_t page, uint64_t ret_words[CHAOS_WORDS]);
// Returns a random number that depends on the two numbers only.
uint64_t chaos_hash(uint64_t seed, uint64_t number);

// Makes the file. Returns 0 or a negative errno.
int chaos_image_write(const char *path, uint64_t seed, uint32_t pages);

#endif
