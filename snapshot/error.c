// SPDX-License-Identifier: Apache-2.0
#include "snapshot/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int fl_fail_plain(struct fl_error *ret_error, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (ret_error)
        vsnprintf(ret_error->text, sizeof(ret_error->text), format, args);
    va_end(args);
    return error;
}

int fl_fail(struct fl_error *ret_error, int error, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (error == -EBADMSG)
        return fl_fail_plain(ret_error, error, "%s: it is damaged (a checksum or a bound is wrong)",
                             text);
    return fl_fail_plain(ret_error, error, "%s: %s", text, strerror(-error));
}
