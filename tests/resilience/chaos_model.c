// SPDX-License-Identifier: Apache-2.0
#include "tests/resilience/chaos_model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/resilience/chaos_image.h"
#include "tests/support/memory.h"

int chaos_model_make(struct chaos_model *ret_model, uint64_t seed, uint32_t pages)
{
    struct chaos_model_page *page = calloc(pages, sizeof(*page));
    if (page == NULL)
        return -ENOMEM;
    *ret_model = (struct chaos_model){.seed = seed, .pages = pages, .page = page};
    return 0;
}

unsigned chaos_model_word(const struct chaos_model *model, uint32_t page)
{
    return (unsigned)(chaos_hash(model->seed, ~(uint64_t)page) % CHAOS_WORDS);
}

void chaos_model_write(struct chaos_model *model, uint32_t page, uint64_t value)
{
    model->page[page].written = true;
    model->page[page].value = value;
}

void chaos_model_remove(struct chaos_model *model, uint32_t page)
{
    model->page[page] = (struct chaos_model_page){.removed = !model->shared};
}

static const char *describe(const struct chaos_model *model, uint32_t page, const uint64_t *words)
{
    uint64_t image[CHAOS_WORDS];
    chaos_image_page(model->seed, page, image);
    if (all_zero((const uint8_t *)words, CHAOS_PAGE))
        return "zeros";
    if (memcmp(words, image, CHAOS_PAGE) == 0)
        return model->page[page].removed ? "the image's bytes from before the removal"
                                         : "the image's bytes without what was written";
    return "bytes that are neither the image's nor zeros";
}

bool chaos_model_right(const struct chaos_model *model, uint32_t page, const uint64_t *words,
                       const char **ret_reason)
{
    uint64_t expected[CHAOS_WORDS] = {0};
    const struct chaos_model_page *state = &model->page[page];
    if (!state->removed)
        chaos_image_page(model->seed, page, expected);
    if (state->written)
        expected[chaos_model_word(model, page)] = state->value;
    if (memcmp(words, expected, CHAOS_PAGE) == 0)
        return true;
    *ret_reason = describe(model, page, words);
    return false;
}
