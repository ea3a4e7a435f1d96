// SPDX-License-Identifier: Apache-2.0
#include "engine/base/utf8.h"

#include <ctype.h>
#include <stdbool.h>

size_t fl_utf8_length(const unsigned char *at)
{
    size_t length = *at > 0 && *at < 0x80       ? 1
                    : *at >= 0xf0 && *at < 0xf5 ? 4
                    : *at >= 0xe0 && *at < 0xf0 ? 3
                    : *at >= 0xc2 && *at < 0xe0 ? 2
                                                : 0;
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80) // a NUL is none either
            return 0;
    }
    bool too_long = (*at == 0xe0 && at[1] < 0xa0) || (*at == 0xf0 && at[1] < 0x90);
    bool no_character = (*at == 0xed && at[1] >= 0xa0) || (*at == 0xf4 && at[1] >= 0x90);
    bool control = *at == 0xc2 && at[1] < 0xa0;
    return length && (too_long || no_character || control) ? 0 : length;
}

void fl_utf8_clean(char *text)
{
    for (unsigned char *at = (unsigned char *)text; *at;) {
        size_t length = fl_utf8_length(at);
        if (length == 0 || (length == 1 && iscntrl(*at))) {
            *at = '?';
            length = 1;
        }
        at += length;
    }
}
