// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/read.h"
#include "tools/cli/exit_status.h"

enum { SENTENCE_MAX = 8192 };

char *cli_plain(char *text)
{
    for (unsigned char *at = (unsigned char *)text; *at; at++) {
        bool high = *at >= 0x80 && *at < 0xa0 && at > (unsigned char *)text && at[-1] == 0xc2;
        if (*at < 0x20 || *at == 0x7f || high)
            *at = '?';
    }
    return text;
}

__attribute__((format(printf, 2, 0))) static void say_sentence(const char *verb, const char *format,
                                                               va_list args)
{
    char text[SENTENCE_MAX];
    vsnprintf(text, sizeof(text), format, args);
    fprintf(stderr, "faultline %s: %s", verb, cli_plain(text));
}

int cli_fail(const char *verb, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_sentence(verb, format, args);
    va_end(args);
    fputc('\n', stderr);
    return EXIT_FAILED;
}

void cli_warn(const char *verb, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_sentence(verb, format, args);
    va_end(args);
    fputc('\n', stderr);
}

int cli_fail_errno(const char *verb, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_sentence(verb, format, args);
    va_end(args);
    fprintf(stderr, ": %s\n", strerror(error < 0 ? -error : error));
    return EXIT_FAILED;
}

int cli_check_page_size(const char *verb)
{
    long bytes = sysconf(_SC_PAGESIZE);
    if (bytes == FL_PAGE_SIZE)
        return EXIT_DONE;
    return cli_fail(
        verb,
        "this kernel's memory pages are of %ld KiB, and only kernels with pages of 4 KiB "
        "are supported",
        bytes / 1024);
}

int cli_usage(const char *verb, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_sentence(verb, format, args);
    va_end(args);
    fprintf(stderr, " (see faultline %s --help)\n", verb);
    return EXIT_USAGE;
}

// --- numbers ---

const char *cli_s(uint64_t number)
{
    return number == 1 ? "" : "s";
}

int cli_parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *ret_number)
{
    char *end = NULL;
    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*end != '\0')
        return -EINVAL;
    if (errno == ERANGE || number < low || number > high)
        return -ERANGE;
    *ret_number = number;
    return 0;
}

static const struct {
    const char *name;
    uint64_t ms;
} time_units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
enum { TIME_UNITS = sizeof(time_units) / sizeof(time_units[0]) };

int cli_parse_time(const char *text, uint64_t plain_ms, uint64_t *ret_ms)
{
    char *end = NULL;
    uint64_t unit = plain_ms;
    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*end != '\0')
        unit = 0;
    for (unsigned i = 0; i < TIME_UNITS; i++)
        unit = strcmp(end, time_units[i].name) == 0 ? time_units[i].ms : unit;
    if (unit == 0)
        return -EINVAL;
    if (errno == ERANGE || number > UINT64_MAX / unit)
        return -ERANGE;
    *ret_ms = number * unit;
    return 0;
}

char *cli_format_time(uint64_t ms, char *buf, size_t size)
{
    unsigned i = 0;
    while (i < TIME_UNITS - 1 && (ms < time_units[i].ms || ms % time_units[i].ms != 0))
        i++;
    snprintf(buf, size, "%" PRIu64 "%s", ms / time_units[i].ms, time_units[i].name);
    return buf;
}

int cli_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char units[] = "KMGT";
    char *end = NULL;
    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno == ERANGE)
        return -ERANGE;
    unsigned shift = 0;
    const char *unit = *end != '\0' ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit) {
        shift = 10U * (unsigned)(unit - units + 1);
        end++;
        if (*end == 'i')
            end++;
        if (*end == 'B')
            end++;
    }
    if (*end != '\0')
        return -EINVAL;
    if (shift && number >> (64 - shift))
        return -ERANGE;
    *ret_bytes = (uint64_t)number << shift;
    return 0;
}

char *cli_format_bytes(uint64_t bytes, char *buf, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(buf, size, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return buf;
}
