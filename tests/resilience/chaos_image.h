// SPDX-License-Identifier: Apache-2.0
//
// The memory file of the chaos and stall runs: what is in a page follows from the run's seed and
// the page's number, so that a client can say what it must see without reading the file.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_IMAGE_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_IMAGE_H

#include <stdint.h>

enum { CHAOS_PAGE = 4096, CHAOS_WORDS = CHAOS_PAGE / 8 };

// Zero pages, pages that many numbers share, compressible ones and noise, in short runs.
void chaos_image_page(uint64_t seed, uint32_t page, uint64_t ret_words[CHAOS_WORDS]);
// A number that follows from the seed and another number; no state.
uint64_t chaos_hash(uint64_t seed, uint64_t number);

// A new file of this many pages. 0 or a negative errno.
int chaos_image_write(const char *path, uint64_t seed, uint32_t pages);

#endif
