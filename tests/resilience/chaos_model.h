// SPDX-License-Identifier: Apache-2.0
//
// What each page of one VM must hold: the image's bytes, zeros since it was removed, and the last
// word that was written over them. One thread at a time for one page.
#ifndef FAULTLINE_TESTS_RESILIENCE_CHAOS_MODEL_H
#define FAULTLINE_TESTS_RESILIENCE_CHAOS_MODEL_H

#include <stdbool.h>
#include <stdint.h>

struct chaos_model_page {
    bool removed;
    bool written;
    uint64_t value; // of the written word
};

struct chaos_model {
    uint64_t seed; // of the image
    bool shared;   // a page that was removed is the image's again: it maps a template
    uint32_t pages;
    struct chaos_model_page *page;
};

// 0 or -ENOMEM. Freed by the end of the process.
int chaos_model_make(struct chaos_model *ret_model, uint64_t seed, uint32_t pages);
// The one word of a page that is written: another one in each page.
unsigned chaos_model_word(const struct chaos_model *model, uint32_t page);
void chaos_model_write(struct chaos_model *model, uint32_t page, uint64_t value);
void chaos_model_remove(struct chaos_model *model, uint32_t page);
// Whether these bytes of a page are what they must be. If not, ret_reason says what they are.
bool chaos_model_right(const struct chaos_model *model, uint32_t page, const uint64_t *words,
                       const char **ret_reason);

#endif
