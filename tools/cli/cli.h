// SPDX-License-Identifier: Apache-2.0
//
// How a verb talks to its user: options, errors of one sentence, numbers with units. For the main
// thread: getopt() has global state.
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

// --- options ---

// One "--NAME" of a verb. Exactly one of the pointers is set: it says what kind of value the option
// has, and where the value goes.
struct cli_option {
    const char *name;
    bool *flag;         // set to true; the option has no value
    const char **text;  // any text but an empty one; points into argv
    uint64_t *size;     // bytes, read by cli_parse_size()
    uint64_t *number;   // from low to high
    unsigned *count;    // from low to high
    uint64_t low, high; // of number and count
    // Reads any other value into arg. Returns NULL, or a sentence's end that says what is wrong,
    // such as "is not a mode".
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

// Reads all options into the places that `options`, up to CLI_END, names for them. The verb's
// arguments then begin at getopt's optind. An option's name must be written out. Returns EXIT_DONE;
// CLI_HELPED if it has printed `help` ("-h", "--help"); EXIT_USAGE after a sentence.
int cli_parse(const char *verb, const char *help, const struct cli_option *options, int argc,
              char **argv);
enum { CLI_HELPED = -1 }; // a verb returns it as it is; see verb_run()

// --- numbers ---

// The largest values of options that are times.
enum { HOUR_MS = 3600 * 1000, DAY_S = 24 * 3600 };

// Reads "512", "64K", "2M" or "3G" (binary units) as bytes. Returns 0, -EINVAL or -ERANGE.
int cli_parse_size(const char *text, uint64_t *ret_bytes);
// Reads a whole number from low to high. Returns 0, -EINVAL or -ERANGE.
int cli_parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *ret_number);
// Returns "" for 1, else "s": the end of a noun after the number.
const char *cli_s(uint64_t number);
// Writes bytes as "12.3 MiB" into buf, and returns buf.
char *cli_format_bytes(uint64_t bytes, char *buf, size_t size);

#endif
