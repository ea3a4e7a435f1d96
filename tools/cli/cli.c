// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
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

// --- options ---

enum { OPTIONS_MAX = 32, FIRST_OPTION = 256 };

// Reads the value of one option. Returns EXIT_DONE, or EXIT_USAGE after a sentence.
static int take_value(const char *verb, const struct cli_option *option, const char *value)
{
    uint64_t number = 0;
    const char *wrong = NULL;
    if (option->flag) {
        *option->flag = true;
    } else if (option->text && *value == '\0') { // probably a variable of a script that is not set
        return cli_usage(verb, "the value of --%s is empty", option->name);
    } else if (option->text) {
        *option->text = value;
    } else if (option->size) {
        if (cli_parse_size(value, option->size) < 0)
            wrong = "is not a size, such as 512M or 4G";
    } else if (option->take) {
        wrong = option->take(option->arg, value);
    } else if (cli_parse_number(value, option->low, option->high, &number) < 0) {
        return cli_usage(verb, "--%s: '%s' is not a number from %" PRIu64 " to %" PRIu64,
                         option->name, value, option->low, option->high);
    } else if (option->number) {
        *option->number = number;
    } else {
        *option->count = (unsigned)number;
    }
    return wrong ? cli_usage(verb, "--%s: '%s' %s", option->name, value, wrong) : EXIT_DONE;
}

static void fill_table(const struct cli_option *options, struct option table[OPTIONS_MAX + 2])
{
    int i = 0;
    for (; options[i].name && i < OPTIONS_MAX; i++)
        table[i] =
            (struct option){options[i].name, options[i].flag ? no_argument : required_argument,
                            NULL, FIRST_OPTION + i};
    table[i] = (struct option){"help", no_argument, NULL, 'h'};
    table[i + 1] = (struct option){0};
}

// Says why getopt has refused an option.
static int refuse_option(const char *verb, const struct cli_option *options, bool no_value,
                         char **argv)
{
    if (optopt >= FIRST_OPTION)
        return cli_usage(verb, no_value ? "--%s needs a value" : "--%s takes no value",
                         options[optopt - FIRST_OPTION].name);
    if (optopt != 0 && strncmp(argv[optind - 1], "--", 2) != 0)
        return cli_usage(verb, "there is no option '-%c'", optopt);
    return cli_usage(verb, "there is no option '%s'", argv[optind - 1]);
}

// True if the option's name was written out. getopt takes any beginning of a name, which may belong
// to another option in another release.
static bool is_whole(const char *name, char **argv)
{
    const char *typed = optarg && optarg == argv[optind - 1] ? argv[optind - 2] : argv[optind - 1];
    size_t length = strcspn(typed + 2, "=");
    return length == strlen(name) && strncmp(typed + 2, name, length) == 0;
}

int cli_parse(const char *verb, const char *help, const struct cli_option *options, int argc,
              char **argv)
{
    struct option table[OPTIONS_MAX + 2];
    int status = EXIT_DONE;
    fill_table(options, table);
    opterr = 0;
    while (status == EXIT_DONE) {
        int index = -1;
        int option = getopt_long(argc, argv, ":h", table, &index);
        if (option == -1)
            break;
        if (option == '?' || option == ':') {
            status = refuse_option(verb, options, option == ':', argv);
        } else if (index >= 0 && !is_whole(table[index].name, argv)) {
            status = cli_usage(verb, "write the option's name out: --%s", table[index].name);
        } else if (option == 'h') {
            fputs(help, stdout);
            status = CLI_HELPED;
        } else {
            status = take_value(verb, &options[option - FIRST_OPTION], optarg);
        }
    }
    return status;
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
