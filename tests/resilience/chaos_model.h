// SPDX-License-Identifier: Apache-2.0
//
// What each page of a VM must hold: the image's bytes, or zeros after it was removed, and over
// these the word that was written last. Only one thread at a time may use a page.
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
    bool shared;   // the VM maps a template, so that a removed page is the image's again
    uint32_t pages;
    struct chaos_model_page *page;
};

// Returns 0 or -ENOMEM. The end of the process frees the model.
int chaos_model_make(struct chaos_model *ret_model, uint64_t seed, uint32_t pages);
// Returns which word of a page is written. It is always the same word of that page.
unsigned chaos_model_word(const struct chaos_model *model, uint32_t page);
void chaos_model_write(struct chaos_model *model, uint32_t page, uint64_t value);
void chaos_model_remove(struct chaos_model *model, uint32_t page);
// Compares the bytes of a page. If they are wrong it returns false, and *ret_reason says what they
// are.
bool chaos_model_right(const struct chaos_model *model, uint32_t page, const uint64_t *words,
                       const char **ret_reason);

#endif
