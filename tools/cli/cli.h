// SPDX-License-Identifier: Apache-2.0
//
// What every verb needs to talk to its user: options, one-sentence errors, and numbers with units.
#ifndef FAULTLINE_TOOLS_CLI_CLI_H
#define FAULTLINE_TOOLS_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Prints "faultline VERB: MESSAGE" to stderr and returns EXIT_FAILED.
__attribute__((format(printf, 2, 3))) int cli_fail(const char *verb, const char *format, ...);
// The same with ": REASON" of -errno appended.
__attribute__((format(printf, 3, 4))) int cli_fail_errno(const char *verb, int error,
                                                         const char *format, ...);
// Prints what is wrong with the arguments and where help is; returns EXIT_USAGE.
__attribute__((format(printf, 2, 3))) int cli_usage(const char *verb, const char *format, ...);

// Text from outside, a name or a path, made fit for a terminal: control characters become '?'. What
// the functions above print is so already. Returns text.
char *cli_plain(char *text);

// --- options ---

// One "--NAME" of a verb and where its value goes: the one pointer that is set says what it takes.
struct cli_option {
    const char *name;
    bool *flag; // takes no value
    const char **text;
    uint64_t *size;   // cli_parse_size()
    uint64_t *number; // in [low, high], as is
    unsigned *count;  // likewise
    uint64_t low, high;
    // Anything else: NULL, or what the value is not, such as "is not a mode".
    const char *(*take)(void *arg, const char *value);
    void *arg;
};

#define CLI_FLAG(NAME, TO)                                                                         \
    {                                                                                              \
        .name = (NAME), .flag = (TO)                                                               \
    }
#define CLI_TEXT(NAME, TO)                                                                         \
    {                                                                                              \
        .name = (NAME), .text = (TO)                                                               \
    }
#define CLI_SIZE(NAME, TO)                                                                         \
    {                                                                                              \
        .name = (NAME), .size = (TO)                                                               \
    }
#define CLI_NUMBER(NAME, TO, LOW, HIGH)                                                            \
    {                                                                                              \
        .name = (NAME), .number = (TO), .low = (LOW), .high = (HIGH)                               \
    }
#define CLI_COUNT(NAME, TO, LOW, HIGH)                                                             \
    {                                                                                              \
        .name = (NAME), .count = (TO), .low = (LOW), .high = (HIGH)                                \
    }
#define CLI_OTHER(NAME, TAKE, ARG)                                                                 \
    {                                                                                              \
        .name = (NAME), .take = (TAKE), .arg = (ARG)                                               \
    }
#define CLI_END                                                                                    \
    {                                                                                              \
        .name = NULL                                                                               \
    }

// Takes all options, which CLI_END ends; arguments begin at getopt's optind then. "-h" and "--help"
// print `help`. Names are to be written out. EXIT_DONE: go on; EXIT_USAGE after a sentence;
// CLI_HELPED.
int cli_parse(const char *verb, const char *help, const struct cli_option *options, int argc,
              char **argv);
enum { CLI_HELPED = -1 };

// --- numbers ---

// "512", "64K", "2M", "3G" (binary units) to bytes. -EINVAL, -ERANGE.
int cli_parse_size(const char *text, uint64_t *ret_bytes);
// A whole number within [low, high]. -EINVAL, -ERANGE.
int cli_parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *ret_number);
// "" or "s", after a number and a noun.
const char *cli_s(uint64_t number);
// "12.3 MiB" into buf; returns buf.
char *cli_format_bytes(uint64_t bytes, char *buf, size_t size);

#endif
