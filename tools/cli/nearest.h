// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_TOOLS_CLI_NEAREST_H
#define FAULTLINE_TOOLS_CLI_NEAREST_H

#include <stddef.h>

// Returns the word that was probably meant: the one that the fewest letters must be changed, added
// or left out for, if these are few; or NULL.
const char *nearest_word(const char *typed, const char *const *words, size_t count);

#endif
