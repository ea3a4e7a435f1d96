// SPDX-License-Identifier: Apache-2.0
//
// What an option is. One entry of a table is all that there is to say about it: --help, the man
// pages, the completion of shells and the configuration file are made from it.
#ifndef FAULTLINE_TOOLS_CLI_OPTION_H
#define FAULTLINE_TOOLS_CLI_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What a value names, for the completion of shells.
enum cli_hint { CLI_ANYTHING, CLI_FILE, CLI_DIRECTORY, CLI_IMAGE, CLI_PROCESS, CLI_VERB };

enum cli_kind {
    CLI_KIND_FLAG,   // bool, set to true; the option has no value
    CLI_KIND_TEXT,   // const char *: any text but an empty one; points into argv
    CLI_KIND_SIZE,   // uint64_t: bytes, read by cli_parse_size()
    CLI_KIND_NUMBER, // uint64_t from low to high
    CLI_KIND_COUNT,  // unsigned from low to high
    CLI_KIND_MS,     // uint64_t: a time in ms, from low to high, read by cli_parse_time()
    CLI_KIND_S,      // the same in seconds; both also mean the unit of a plain number
    CLI_KIND_OTHER,  // what `take` reads
};

// When the server takes up a value of the configuration file that was changed.
enum cli_when {
    CLI_AT_ENGINE,  // with a new engine: at a reload, and at any upgrade
    CLI_AT_RELOAD,  // at a reload, which replaces the keeper as well
    CLI_AT_RESTART, // when the server is started anew: what VMs depend on
};

// One "--NAME". An entry is made by one of the macros below; a table ends with CLI_END.
struct cli_option {
    const char *name;
    const char *value;       // the name of its value in texts, such as "DIR"
    const char *help;        // what it does, as a sentence without an end
    const char *preset;      // the value that it has if it is not given; NULL: see otherwise
    const char *otherwise;   // what holds then if that is no value, such as "one a core"
    const char *environment; // a variable whose value comes before preset
    const char *choices;     // all its values, such as "on|off"
    bool only_option;        // the configuration file cannot set it
    bool by_file;            // of any verb: the server's configuration file says the default
    enum cli_when when;      // for the file: when a change of it is taken up
    uint64_t low, high;      // of a number, a count or a time
    // Reads any other value into the place. Returns NULL, or a sentence's end that says what is
    // wrong, such as "is not a mode".
    const char *(*take)(void *place, const char *value);
    const struct cli_option *group; // not an option: the options of this table, at `at`
    size_t at;                      // where the value goes in the verb's structure
    enum cli_kind kind;
    enum cli_hint hint;
};

// The offset of a member, which must have the type WANTED.
#define CLI_AT(TYPE, MEMBER, WANTED) _Generic(((TYPE *)0)->MEMBER, WANTED : offsetof(TYPE, MEMBER))

// The value goes into MEMBER of the structure TYPE that cli_parse() gets. What follows are other
// members of struct cli_option.
#define CLI_FLAG(TYPE, MEMBER, ...)                                                                \
    {                                                                                              \
        .kind = CLI_KIND_FLAG, .at = CLI_AT(TYPE, MEMBER, bool), __VA_ARGS__                       \
    }
#define CLI_TEXT(TYPE, MEMBER, ...)                                                                \
    {                                                                                              \
        .kind = CLI_KIND_TEXT, .at = CLI_AT(TYPE, MEMBER, const char *), __VA_ARGS__               \
    }
#define CLI_SIZE(TYPE, MEMBER, ...)                                                                \
    {                                                                                              \
        .kind = CLI_KIND_SIZE, .at = CLI_AT(TYPE, MEMBER, uint64_t), __VA_ARGS__                   \
    }
#define CLI_NUMBER(TYPE, MEMBER, ...)                                                              \
    {                                                                                              \
        .kind = CLI_KIND_NUMBER, .at = CLI_AT(TYPE, MEMBER, uint64_t), __VA_ARGS__                 \
    }
#define CLI_COUNT(TYPE, MEMBER, ...)                                                               \
    {                                                                                              \
        .kind = CLI_KIND_COUNT, .at = CLI_AT(TYPE, MEMBER, unsigned), __VA_ARGS__                  \
    }
#define CLI_TIME_MS(TYPE, MEMBER, ...)                                                             \
    {                                                                                              \
        .kind = CLI_KIND_MS, .at = CLI_AT(TYPE, MEMBER, uint64_t), __VA_ARGS__                     \
    }
#define CLI_TIME_S(TYPE, MEMBER, ...)                                                              \
    {                                                                                              \
        .kind = CLI_KIND_S, .at = CLI_AT(TYPE, MEMBER, uint64_t), __VA_ARGS__                      \
    }
#define CLI_OTHER(TYPE, MEMBER, TAKE, ...)                                                         \
    {                                                                                              \
        .kind = CLI_KIND_OTHER, .at = offsetof(TYPE, MEMBER), .take = (TAKE), __VA_ARGS__          \
    }
// All options of another table, whose structure is MEMBER.
#define CLI_GROUP(TYPE, MEMBER, TABLE)                                                             \
    {                                                                                              \
        .group = (TABLE), .at = offsetof(TYPE, MEMBER)                                             \
    }
#define CLI_END                                                                                    \
    {                                                                                              \
        .name = NULL                                                                               \
    }

// Options that many verbs have.
#define CLI_STORE(TYPE, MEMBER)                                                                    \
    CLI_TEXT(TYPE, MEMBER, .name = "store", .value = "DIR", .hint = CLI_DIRECTORY,                 \
             .help = "the store", .preset = DEFAULT_STORE, .environment = "FAULTLINE_STORE",       \
             .by_file = true)
#define CLI_CONTROL(TYPE, MEMBER)                                                                  \
    CLI_TEXT(TYPE, MEMBER, .name = "control", .value = "PATH", .hint = CLI_FILE,                   \
             .help = "the server's control socket", .preset = DEFAULT_CONTROL,                     \
             .environment = "FAULTLINE_CONTROL", .by_file = true)
#define CLI_JSON(TYPE, MEMBER)                                                                     \
    CLI_FLAG(TYPE, MEMBER, .name = "json", .help = "print the result as JSON (docs/json.md)")
#define CLI_THREADS(TYPE, MEMBER)                                                                  \
    CLI_COUNT(TYPE, MEMBER, .name = "threads", .value = "N", .low = 1, .high = 256,                \
              .help = "number of threads", .otherwise = "one a core")

enum { CLI_OPTIONS_MAX = 96 };

// An option of a table or of its groups, and where its value goes.
struct cli_place {
    const struct cli_option *option;
    size_t at;
};

// Lists the options of a table, with those of its groups in their place. Returns their number, at
// most CLI_OPTIONS_MAX.
size_t cli_list_options(const struct cli_option *options, struct cli_place ret_list[]);

// Reads a value into its place; a flag needs none. Returns false, and a sentence's end such as "is
// not a size", if it is wrong.
enum { CLI_WRONG_BYTES = 128 };
bool cli_take_value(const struct cli_option *option, void *place, const char *value,
                    char ret_wrong[CLI_WRONG_BYTES]);

#endif
