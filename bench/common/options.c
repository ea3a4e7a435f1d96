// SPDX-License-Identifier: Apache-2.0
#include "bench/common/options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 80, SPELLED_MAX = 64 };

int bench_options_refuse(const struct bench_command *command, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "%s: ", command->program);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, " (see %s --help)\n", command->program);
    return BENCH_OPTIONS_WRONG;
}

static bool is_end(const struct bench_option *option)
{
    return option->help == NULL;
}

// "--NAME", or what an argument is called.
static const char *spell(const struct bench_option *option, char text[SPELLED_MAX])
{
    snprintf(text, SPELLED_MAX, "%s%s", option->name ? "--" : "",
             option->name ? option->name : option->value);
    return text;
}

// The same with the value: "--NAME VALUE", "FILE...".
static const char *spell_whole(const struct bench_option *option, char text[SPELLED_MAX])
{
    bool valued = option->name && !option->flag;
    snprintf(text, SPELLED_MAX, "%s%s%s%s%s", option->name ? "--" : "",
             option->name ? option->name : option->value, valued ? " " : "",
             valued ? option->value : "", option->list ? "..." : "");
    return text;
}

// --- help ---

// Continues a line that has `column` characters; lines that follow begin at `indent`.
static void print_wrapped(const char *text, int column, int indent)
{
    while (*text) {
        int length = (int)strcspn(text, " ");
        if (column > indent && column + 1 + length > COLUMNS) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        printf("%.*s", length, text);
        column += length;
        text += length;
        text += strspn(text, " ");
    }
    putchar('\n');
}

// " (the default)", or nothing where there is none.
static void spell_default(const struct bench_option *option, char text[SPELLED_MAX])
{
    text[0] = '\0';
    if (option->otherwise) {
        snprintf(text, SPELLED_MAX, " (%s)", option->otherwise);
    } else if ((option->number || option->large) && !option->required) {
        uint64_t number = option->number ? *option->number : *option->large;
        bool mib = number != 0 && number % (1u << 20) == 0;
        bool gib = mib && number % (1u << 30) == 0;
        snprintf(text, SPELLED_MAX, " (%" PRIu64 "%s)",
                 number >> (gib   ? 30
                            : mib ? 20
                                  : 0),
                 gib ? "G" : (mib ? "M" : ""));
    }
}

static void print_option(const struct bench_option *option, int indent)
{
    char name[SPELLED_MAX];
    char otherwise[SPELLED_MAX];
    char text[1024];
    spell_default(option, otherwise);
    snprintf(text, sizeof(text), "%s%s", option->help, otherwise);
    printf("  %-*s", indent - 2, spell_whole(option, name));
    print_wrapped(text, indent, indent);
}

static void print_usage(const struct bench_command *command)
{
    char text[SPELLED_MAX];
    bool optional = false;
    printf("usage: %s", command->program);
    for (const struct bench_option *option = command->option; !is_end(option); option++) {
        optional |= option->name && !option->required;
        if (option->name && option->required)
            printf(" %s", spell_whole(option, text));
    }
    printf("%s", optional ? " [OPTION...]" : "");
    for (const struct bench_option *option = command->option; !is_end(option); option++) {
        if (!option->name)
            printf(option->required ? " %s" : " [%s]", spell_whole(option, text));
    }
    putchar('\n');
}

static int print_help(const struct bench_command *command)
{
    char text[SPELLED_MAX];
    int indent = (int)sizeof("  --help  ") - 1;
    for (const struct bench_option *option = command->option; !is_end(option); option++) {
        int width = 4 + (int)strlen(spell_whole(option, text));
        indent = width > indent ? width : indent;
    }
    print_usage(command);
    print_wrapped(command->about, 0, 0);
    putchar('\n');
    for (const struct bench_option *option = command->option; !is_end(option); option++)
        print_option(option, indent);
    printf("  %-*sprint this\n", indent - 2, "--help");
    return BENCH_OPTIONS_HELPED;
}

// --- values ---

static bool parse_number(const char *text, uint64_t *ret_number)
{
    static const char units[] = "KMG";
    char *end = NULL;
    unsigned shift = 0;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    const char *unit = *end != '\0' ? strchr(units, *end) : NULL;
    if (unit) {
        shift = 10 * (unsigned)(unit - units + 1);
        end++;
    }
    if (*end != '\0' || errno == ERANGE || number > UINT64_MAX >> shift)
        return false;
    *ret_number = number << shift;
    return true;
}

static int store_number(const struct bench_command *command, const struct bench_option *option,
                        const char *value)
{
    char name[SPELLED_MAX];
    uint64_t number = 0;
    uint64_t most = option->number ? UINT32_MAX : UINT64_MAX;
    uint64_t high = option->high ? option->high : most;
    bool good = parse_number(value, &number);
    if (!good && option->low == 0 && high == most)
        return bench_options_refuse(command, "%s: '%s' is not a number", spell(option, name),
                                    value);
    if (!good || number < option->low || number > high)
        return bench_options_refuse(command,
                                    "%s: '%s' is not a number from %" PRIu64 " to %" PRIu64,
                                    spell(option, name), value, option->low, high);
    if (option->number)
        *option->number = (uint32_t)number;
    else
        *option->large = number;
    return BENCH_OPTIONS_GOOD;
}

static int store(const struct bench_command *command, const struct bench_option *option,
                 const char *value)
{
    char name[SPELLED_MAX];
    if (option->number || option->large)
        return store_number(command, option, value);
    if (option->path) {
        *option->path = realpath(value, NULL);
        if (!*option->path)
            return bench_options_refuse(command, "%s: %s: %s", spell(option, name), value,
                                        strerror(errno));
    } else if (option->take) {
        const char *wrong = option->take(option->to, value);
        if (wrong)
            return bench_options_refuse(command, "%s: '%s' %s", spell(option, name), value, wrong);
    } else {
        *option->text = value;
    }
    return BENCH_OPTIONS_GOOD;
}

// --- arguments ---

struct scan {
    const struct bench_command *command;
    int argc;
    char **argv;
    int at;         // of argv
    uint64_t given; // a bit for each entry of the table
    bool literal;   // "--" was there: what follows are no options
};

static int take_argument(struct scan *scan)
{
    const struct bench_option *table = scan->command->option;
    for (unsigned i = 0; !is_end(&table[i]); i++) {
        if (table[i].name || scan->given & UINT64_C(1) << i)
            continue;
        scan->given |= UINT64_C(1) << i;
        if (!table[i].list)
            return store(scan->command, &table[i], scan->argv[scan->at]);
        *table[i].list = (struct bench_list){.text = scan->argv + scan->at,
                                             .count = (unsigned)(scan->argc - scan->at)};
        scan->at = scan->argc;
        return BENCH_OPTIONS_GOOD;
    }
    return bench_options_refuse(scan->command, "'%s' is one argument too many",
                                scan->argv[scan->at]);
}

static int take_option(struct scan *scan)
{
    const struct bench_command *command = scan->command;
    const char *name = scan->argv[scan->at] + 2;
    size_t length = strcspn(name, "=");
    const char *value = name[length] == '=' ? name + length + 1 : NULL;
    unsigned i = 0;
    const struct bench_option *option = command->option;
    for (; !is_end(option); option++, i++) {
        if (option->name && strlen(option->name) == length &&
            strncmp(option->name, name, length) == 0)
            break;
    }
    if (is_end(option))
        return bench_options_refuse(command, "there is no option --%.*s", (int)length, name);
    scan->given |= UINT64_C(1) << i;
    if (option->flag && value)
        return bench_options_refuse(command, "--%s takes no value", option->name);
    if (option->flag) {
        *option->flag = true;
        return BENCH_OPTIONS_GOOD;
    }
    if (!value && scan->at + 1 < scan->argc)
        value = scan->argv[++scan->at];
    if (!value)
        return bench_options_refuse(command, "--%s needs a value, %s", option->name, option->value);
    return store(command, option, value);
}

static int take_next(struct scan *scan)
{
    const char *text = scan->argv[scan->at];
    if (scan->literal || text[0] != '-' || text[1] == '\0')
        return take_argument(scan);
    if (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0)
        return print_help(scan->command);
    if (text[1] != '-')
        return bench_options_refuse(scan->command, "there is no option %s", text);
    if (text[2] != '\0')
        return take_option(scan);
    scan->literal = true;
    return BENCH_OPTIONS_GOOD;
}

int bench_options_parse(const struct bench_command *command, int argc, char **argv)
{
    char name[SPELLED_MAX];
    struct scan scan = {.command = command, .argc = argc, .argv = argv, .at = 1};
    for (; scan.at < argc; scan.at++) {
        int result = take_next(&scan);
        if (result != BENCH_OPTIONS_GOOD)
            return result;
    }
    for (unsigned i = 0; !is_end(&command->option[i]); i++) {
        if (command->option[i].required && !(scan.given & UINT64_C(1) << i))
            return bench_options_refuse(command, "%s is missing",
                                        spell_whole(&command->option[i], name));
    }
    return BENCH_OPTIONS_GOOD;
}
