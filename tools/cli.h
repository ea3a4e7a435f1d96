// SPDX-License-Identifier: Apache-2.0
//
// What every verb needs to talk to its user: one-sentence errors and numbers with units.
#ifndef FAULTLINE_TOOLS_CLI_H
#define FAULTLINE_TOOLS_CLI_H

#include <stddef.h>
#include <stdint.h>

// Prints "faultline VERB: MESSAGE" to stderr and returns EXIT_FAILED.
__attribute__((format(printf, 2, 3))) int cli_fail(const char *verb, const char *format, ...);
// The same with ": REASON" of -errno appended.
__attribute__((format(printf, 3, 4))) int cli_fail_errno(const char *verb, int error, const char *format, ...);
// Prints what is wrong with the arguments and where help is; returns EXIT_USAGE.
__attribute__((format(printf, 2, 3))) int cli_usage(const char *verb, const char *format, ...);

// "512", "64K", "2M", "3G" (binary units) to bytes. -EINVAL, -ERANGE.
int cli_parse_size(const char *text, uint64_t *ret_bytes);
// A whole number within [low, high]. -EINVAL, -ERANGE.
int cli_parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *ret_number);
// "12.3 MiB" into buf; returns buf.
char *cli_format_bytes(uint64_t bytes, char *buf, size_t size);

#endif
