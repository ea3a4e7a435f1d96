// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/nearest.h"

#include <string.h>

enum { WORD_MAX = 64 };

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

// The number of letters to change, add or leave out (Levenshtein's distance).
static unsigned distance(const char *from, const char *to)
{
    unsigned row[WORD_MAX + 1];
    size_t length = strlen(to);
    if (length > WORD_MAX || strlen(from) > WORD_MAX)
        return WORD_MAX;
    for (unsigned i = 0; i <= length; i++)
        row[i] = i;
    for (unsigned i = 1; from[i - 1]; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= length; j++) {
            unsigned above = row[j];
            row[j] = least(least(above, row[j - 1]) + 1, diagonal + (from[i - 1] != to[j - 1]));
            diagonal = above;
        }
    }
    return row[length];
}

const char *nearest_word(const char *typed, const char *const *words, size_t count)
{
    const char *best = NULL;
    unsigned fewest = (unsigned)strlen(typed) / 3 + 1;
    for (size_t i = 0; i < count; i++) {
        unsigned far = distance(typed, words[i]);
        if (far <= fewest && (!best || far < fewest)) {
            best = words[i];
            fewest = far;
        }
    }
    return best;
}
