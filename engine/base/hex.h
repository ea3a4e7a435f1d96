// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_BASE_HEX_H
#define FAULTLINE_BASE_HEX_H

#include <stddef.h>
#include <stdint.h>

// Writes bytes as hex digits, two each, and a NUL. Any thread.
static inline void fl_hex(const uint8_t *bytes, size_t count, char *ret_text)
{
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < count; i++) {
        ret_text[2 * i] = digit[bytes[i] >> 4];
        ret_text[2 * i + 1] = digit[bytes[i] & 15];
    }
    ret_text[2 * count] = '\0';
}

#endif
