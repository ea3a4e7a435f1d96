// SPDX-License-Identifier: Apache-2.0
//
// Text that others have chosen, and that is to be in JSON or in a log. Any thread.
#ifndef FAULTLINE_BASE_UTF8_H
#define FAULTLINE_BASE_UTF8_H

#include <stddef.h>

// The bytes of the character of UTF-8 that begins here, up to a NUL; 0 if there is none, or one of
// the control characters C1.
size_t fl_utf8_length(const unsigned char *at);
// Puts a '?' for each byte that is of no character, and for control characters.
void fl_utf8_clean(char *text);

#endif
