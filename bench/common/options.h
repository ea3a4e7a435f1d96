// SPDX-License-Identifier: Apache-2.0
//
// The command line of the programs of bench/ and tests/resilience/. Each program has one table of
// what it takes, what that is for and where it goes; --help is made from the same table.
#ifndef FAULTLINE_BENCH_COMMON_OPTIONS_H
#define FAULTLINE_BENCH_COMMON_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct bench_list {
    char **text; // a part of argv
    unsigned count;
};

// An option, "--NAME VALUE" or "--NAME=VALUE"; or, without a name, an argument that is known by its
// place. Exactly one of the pointers is set: it says where the value goes, and so what it must be.
struct bench_option {
    const char *name;  // without the dashes; NULL: an argument
    const char *value; // what --help calls the value: "N", "FILE"; not needed for a flag
    const char *help;  // what it is for, without the default
    bool *flag;        // takes no value; becomes true
    const char **text;
    const char **path; // of a file that exists: becomes absolute, lives as long as the process
    uint32_t *number;  // numbers may end in K, M or G (powers of 1024)
    uint64_t *large;   // a number, too
    struct bench_list *list; // all that follows, at least one; an argument only
    // Any other value: returns NULL, or what the value is not, such as "is not an order".
    const char *(*take)(void *to, const char *value);
    void *to;
    uint64_t low, high;    // of a number; high 0: all that its type can hold
    const char *otherwise; // the default in words; NULL: the number that is there now
    bool required;
};

struct bench_command {
    const char *program;
    const char *about;                 // what the program does, in sentences
    const struct bench_option *option; // ends with BENCH_OPTIONS_END
};

#define BENCH_OPTIONS_END                                                                          \
    {                                                                                              \
        .help = NULL                                                                               \
    }

// What bench_options_parse() returns. All but the first are exit statuses.
enum { BENCH_OPTIONS_GOOD = -1, BENCH_OPTIONS_HELPED = 0, BENCH_OPTIONS_WRONG = 2 };

// Stores what the arguments say. When it returns BENCH_OPTIONS_GOOD the program goes on. Otherwise
// the program exits with what was returned: it has printed the help, or standard error has one
// sentence that says what is wrong.
int bench_options_parse(const struct bench_command *command, int argc, char **argv);

// For what the table cannot say, such as options that exclude each other. Prints "PROGRAM: SENTENCE
// (see PROGRAM --help)" and returns BENCH_OPTIONS_WRONG.
__attribute__((format(printf, 2, 3))) int bench_options_refuse(const struct bench_command *command,
                                                               const char *format, ...);

#endif
