// SPDX-License-Identifier: Apache-2.0
//
// How a verb talks to its user: errors of one sentence, numbers with units.
#ifndef FAULTLINE_TOOLS_CLI_CLI_H
#define FAULTLINE_TOOLS_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Prints "faultline VERB: MESSAGE" to stderr and returns EXIT_FAILED.
__attribute__((format(printf, 2, 3))) int cli_fail(const char *verb, const char *format, ...);
// Prints the same for a verb that goes on.
__attribute__((format(printf, 2, 3))) void cli_warn(const char *verb, const char *format, ...);
// Does what cli_fail() does, and appends ": REASON" for error, which is an errno value of either
// sign.
__attribute__((format(printf, 3, 4))) int cli_fail_errno(const char *verb, int error,
                                                         const char *format, ...);
// Prints the sentence, and how to get help; returns EXIT_USAGE.
__attribute__((format(printf, 2, 3))) int cli_usage(const char *verb, const char *format, ...);

// Makes text from outside, such as a name or a path, safe for a terminal: replaces each control
// character by '?', in place. Returns text. The functions above do it themselves.
char *cli_plain(char *text);

// EXIT_DONE on a kernel with pages of 4 KiB, the unit of an image; on any other EXIT_FAILED after a
// sentence. For verbs that fill or judge the memory of processes.
int cli_check_page_size(const char *verb);

// --- numbers ---

// The largest values of options that are times.
enum { HOUR_MS = 3600 * 1000, DAY_S = 24 * 3600 };

// Reads "512", "64K", "2M" or "3G" (binary units) as bytes. Returns 0, -EINVAL or -ERANGE.
int cli_parse_size(const char *text, uint64_t *ret_bytes);
// Reads "500ms", "90s", "30m", "1h" or "2d" as milliseconds; a plain number is one of plain_ms.
// Returns 0, -EINVAL or -ERANGE.
int cli_parse_time(const char *text, uint64_t plain_ms, uint64_t *ret_ms);
// Writes it in the largest unit in which it is whole, such as "90s", and returns buf.
enum { CLI_TIME_BYTES = 24 };
char *cli_format_time(uint64_t ms, char *buf, size_t size);
// Reads a whole number from low to high. Returns 0, -EINVAL or -ERANGE.
int cli_parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *ret_number);
// Returns "" for 1, else "s": the end of a noun after the number.
const char *cli_s(uint64_t number);
// Writes bytes as "12.3 MiB" into buf, and returns buf.
char *cli_format_bytes(uint64_t bytes, char *buf, size_t size);

#endif
