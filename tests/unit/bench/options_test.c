// SPDX-License-Identifier: Apache-2.0
//
// The command line of the programs of bench/: where values go, what is refused and in which words,
// and what --help says.
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/common/options.h"

TestSuite(options, .timeout = 10);

static bool loud;
static const char *name, *first, *second, *path;
static uint32_t count = 64;
static uint64_t size = UINT64_C(2) << 20;
static struct bench_list files;
static unsigned taken;

static const char *take_even(void *to, const char *value)
{
    *(unsigned *)to += 1;
    return strlen(value) % 2 == 0 ? NULL : "has an odd number of letters";
}

static const struct bench_option table[] = {
    {.name = "loud", .flag = &loud, .help = "with sound"},
    {.name = "name", .value = "TEXT", .text = &name, .help = "a name", .otherwise = "none"},
    {.name = "path", .value = "FILE", .path = &path, .help = "a file"},
    {.name = "count", .value = "N", .number = &count, .low = 1, .high = 4096, .help = "a number"},
    {.name = "size", .value = "SIZE", .large = &size, .help = "a size"},
    {.name = "even", .value = "WORD", .take = take_even, .to = &taken, .help = "a word"},
    {.value = "FIRST", .text = &first, .required = true, .help = "the first argument"},
    {.value = "SECOND", .text = &second, .help = "the second argument"},
    BENCH_OPTIONS_END,
};
static const struct bench_command command = {
    .program = "program", .about = "Does a thing.", .option = table};

static const struct bench_option list_table[] = {
    {.name = "name", .value = "TEXT", .text = &name, .required = true, .help = "a name"},
    {.value = "FILE", .list = &files, .required = true, .help = "files"},
    BENCH_OPTIONS_END,
};
static const struct bench_command list_command = {
    .program = "program", .about = "Does a thing.", .option = list_table};

#define PARSE(COMMAND, ...) parse(COMMAND, (char *[]){"program", __VA_ARGS__, NULL})

static int parse(const struct bench_command *which, char **argv)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    return bench_options_parse(which, argc, argv);
}

// Parses, and compares standard error with the sentence.
#define cr_assert_refused(SENTENCE, ...)                                                           \
    do {                                                                                           \
        cr_redirect_stderr();                                                                      \
        cr_assert_eq(PARSE(&command, __VA_ARGS__), BENCH_OPTIONS_WRONG);                           \
        fflush(stderr);                                                                            \
        cr_assert_stderr_eq_str("program: " SENTENCE " (see program --help)\n");                   \
    } while (0)

// --- what is taken ---

Test(options, go_where_the_table_says)
{
    cr_assert_eq(PARSE(&command, "--loud", "--name", "ada", "one", "--count=7", "--size", "3K",
                       "--even", "abcd", "two"),
                 BENCH_OPTIONS_GOOD);
    cr_assert(loud);
    cr_assert_str_eq(name, "ada");
    cr_assert_str_eq(first, "one");
    cr_assert_str_eq(second, "two");
    cr_assert_eq(count, 7);
    cr_assert_eq(size, 3072);
    cr_assert_eq(taken, 1);
}

Test(options, keep_the_defaults_of_what_is_not_given)
{
    cr_assert_eq(PARSE(&command, "one"), BENCH_OPTIONS_GOOD);
    cr_assert_not(loud);
    cr_assert_null(name);
    cr_assert_null(second);
    cr_assert_eq(count, 64);
    cr_assert_eq(size, UINT64_C(2) << 20);
}

Test(options, have_units_of_1024)
{
    cr_assert_eq(PARSE(&command, "one", "--size", "5G", "--count", "4K"), BENCH_OPTIONS_GOOD);
    cr_assert_eq(size, UINT64_C(5) << 30);
    cr_assert_eq(count, 4096);
}

Test(options, make_a_path_absolute)
{
    char here[PATH_MAX];
    cr_assert_not_null(realpath(".", here));
    cr_assert_eq(PARSE(&command, "one", "--path", "."), BENCH_OPTIONS_GOOD);
    cr_assert_str_eq(path, here);
}

Test(options, may_be_given_more_than_once)
{
    cr_assert_eq(
        PARSE(&command, "--even", "ab", "--count", "1", "--count", "2", "--even", "cd", "one"),
        BENCH_OPTIONS_GOOD);
    cr_assert_eq(taken, 2);
    cr_assert_eq(count, 2);
}

Test(options, are_arguments_after_two_dashes)
{
    cr_assert_eq(PARSE(&command, "-", "--", "--loud"), BENCH_OPTIONS_GOOD);
    cr_assert_str_eq(first, "-");
    cr_assert_str_eq(second, "--loud");
    cr_assert_not(loud);
}

Test(options, a_list_has_all_that_follows)
{
    char *argv[] = {"program", "--name", "ada", "a", "b", "--name", NULL};
    cr_assert_eq(parse(&list_command, argv), BENCH_OPTIONS_GOOD);
    cr_assert_str_eq(name, "ada");
    cr_assert_eq(files.count, 3);
    cr_assert_str_eq(files.text[0], "a");
    cr_assert_str_eq(files.text[2], "--name");
}

// --- what is refused ---

Test(options, refuse_an_option_that_there_is_not)
{
    cr_assert_refused("there is no option --lou", "--lou", "one");
}

Test(options, refuse_an_option_that_there_is_not_with_a_value)
{
    cr_assert_refused("there is no option --colour", "--colour=red", "one");
}

Test(options, refuse_a_short_option)
{
    cr_assert_refused("there is no option -l", "-l", "one");
}

Test(options, refuse_a_flag_with_a_value)
{
    cr_assert_refused("--loud takes no value", "--loud=yes", "one");
}

Test(options, refuse_an_option_without_its_value)
{
    cr_assert_refused("--name needs a value, TEXT", "one", "--name");
}

Test(options, refuse_a_number_out_of_range)
{
    cr_assert_refused("--count: '0' is not a number from 1 to 4096", "one", "--count", "0");
}

Test(options, refuse_a_number_with_something_behind_it)
{
    cr_assert_refused("--count: '7x' is not a number from 1 to 4096", "one", "--count", "7x");
}

Test(options, refuse_a_number_with_a_sign)
{
    cr_assert_refused("--size: '-1' is not a number", "one", "--size", "-1");
}

Test(options, refuse_a_number_that_does_not_fit)
{
    cr_assert_refused("--size: '17179869184G' is not a number", "one", "--size", "17179869184G");
}

Test(options, refuse_a_number_with_too_many_digits)
{
    cr_assert_refused("--size: '18446744073709551616' is not a number", "one",
                      "--size=18446744073709551616");
}

Test(options, refuse_a_file_that_is_not_there)
{
    cr_assert_refused("--path: /nowhere: No such file or directory", "one", "--path", "/nowhere");
}

Test(options, refuse_what_the_program_refuses)
{
    cr_assert_refused("--even: 'abc' has an odd number of letters", "one", "--even", "abc");
}

Test(options, refuse_one_argument_too_many)
{
    cr_assert_refused("'three' is one argument too many", "one", "two", "three");
}

Test(options, refuse_to_go_on_without_an_argument)
{
    cr_assert_refused("FIRST is missing", "--loud");
}

Test(options, refuse_to_go_on_without_a_required_option)
{
    cr_redirect_stderr();
    cr_assert_eq(PARSE(&list_command, "a"), BENCH_OPTIONS_WRONG);
    fflush(stderr);
    cr_assert_stderr_eq_str("program: --name TEXT is missing (see program --help)\n");
}

// --- help ---

Test(options, are_explained_with_their_defaults)
{
    cr_redirect_stdout();
    cr_assert_eq(PARSE(&command, "--help", "--colour"), BENCH_OPTIONS_HELPED);
    fflush(stdout);
    cr_assert_stdout_eq_str("usage: program [OPTION...] FIRST [SECOND]\n"
                            "Does a thing.\n"
                            "\n"
                            "  --loud       with sound\n"
                            "  --name TEXT  a name (none)\n"
                            "  --path FILE  a file\n"
                            "  --count N    a number (64)\n"
                            "  --size SIZE  a size (2M)\n"
                            "  --even WORD  a word\n"
                            "  FIRST        the first argument\n"
                            "  SECOND       the second argument\n"
                            "  --help       print this\n");
}

Test(options, have_help_that_fits_on_a_screen)
{
    static const struct bench_option wordy_table[] = {
        {.name = "name",
         .value = "TEXT",
         .text = &name,
         .required = true,
         .help = "a name with so much to it that what is said does not fit on one line"},
        {.value = "FILE", .list = &files, .required = true, .help = "files"},
        BENCH_OPTIONS_END,
    };
    static const struct bench_command wordy = {
        .program = "program",
        .about = "Says so much about itself that one line of eighty columns cannot have it all: "
                 "two can.",
        .option = wordy_table,
    };
    cr_redirect_stdout();
    cr_assert_eq(PARSE(&wordy, "-h"), BENCH_OPTIONS_HELPED);
    fflush(stdout);
    cr_assert_stdout_eq_str(
        "usage: program --name TEXT FILE...\n"
        "Says so much about itself that one line of eighty columns cannot have it all:\n"
        "two can.\n"
        "\n"
        "  --name TEXT  a name with so much to it that what is said does not fit on one\n"
        "               line\n"
        "  FILE...      files\n"
        "  --help       print this\n");
}
