// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/parse.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/defaults.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/help.h"

enum { FIRST_OPTION = 256 };

// The options of a verb, and the structure that gets their values.
struct parse {
    const char *verb;
    char *to;
    size_t count;
    struct cli_place list[CLI_OPTIONS_MAX];
    struct cli_given *given;
};

// "-" means standard input or output to many programs. No verb has a use for it: a memory file is
// read in any order and more than once, and a file that is written appears whole or not at all.
static bool is_standard(enum cli_hint hint, const char *value)
{
    return (hint == CLI_FILE || hint == CLI_DIRECTORY) && strcmp(value, "-") == 0;
}

static int refuse_standard(const char *verb, const char *dashes, const char *name)
{
    return cli_usage(verb,
                     "%s%s: '-' is not standard input or output here; write ./- for a file of this "
                     "name",
                     dashes, name);
}

// The words that are no options.
static int check_arguments(const struct verb *verb, int argc, char **argv)
{
    const struct verb_argument *argument = verb->arguments;
    for (int i = optind; i < argc && argument && argument->name; i++) {
        if (is_standard(argument->hint, argv[i]))
            return refuse_standard(verb->name, "", argument->name);
        argument += !argument->many;
    }
    return EXIT_DONE;
}

// Reads the value of one option. Returns EXIT_DONE, or EXIT_USAGE after a sentence.
static int take_value(const struct parse *parse, const struct cli_place *place, const char *value)
{
    char wrong[CLI_WRONG_BYTES];
    const struct cli_option *option = place->option;
    if (option->kind == CLI_KIND_TEXT && *value == '\0') // probably a script's variable, not set
        return cli_usage(parse->verb, "the value of --%s is empty", option->name);
    if (is_standard(option->hint, value))
        return refuse_standard(parse->verb, "--", option->name);
    if (cli_take_value(option, parse->to + place->at, value, wrong))
        return EXIT_DONE;
    return cli_usage(parse->verb, "--%s: '%s' %s", option->name, value, wrong);
}

static int take_defaults(const struct parse *parse)
{
    int status = EXIT_DONE;
    for (size_t i = 0; i < parse->count && status == EXIT_DONE; i++) {
        const struct cli_option *option = parse->list[i].option;
        const char *value = default_from_environment(option);
        parse->given->environment[i] = value;
        if (!value)
            value = default_value(option);
        if (value)
            status = take_value(parse, &parse->list[i], value);
    }
    return status;
}

static void fill_table(const struct parse *parse, struct option table[CLI_OPTIONS_MAX + 2])
{
    size_t i = 0;
    for (; i < parse->count; i++) {
        const struct cli_option *option = parse->list[i].option;
        int argument = option->kind == CLI_KIND_FLAG ? no_argument : required_argument;
        table[i] = (struct option){option->name, argument, NULL, FIRST_OPTION + (int)i};
    }
    table[i] = (struct option){"help", no_argument, NULL, 'h'};
    table[i + 1] = (struct option){0};
}

// Says why getopt has refused an option.
static int refuse_option(const struct parse *parse, bool no_value, char **argv)
{
    const char *verb = parse->verb;
    if (optopt >= FIRST_OPTION)
        return cli_usage(verb, no_value ? "--%s needs a value" : "--%s takes no value",
                         parse->list[optopt - FIRST_OPTION].option->name);
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

// One option that getopt has found.
static int take_option(struct parse *parse, size_t i)
{
    bool flag = parse->list[i].option->kind == CLI_KIND_FLAG;
    parse->given->option[i] = flag ? "on" : optarg;
    return take_value(parse, &parse->list[i], optarg);
}

int cli_parse(const struct verb *verb, void *to, int argc, char **argv)
{
    struct cli_given given;
    return cli_parse_given(verb, to, argc, argv, &given);
}

int cli_parse_given(const struct verb *verb, void *to, int argc, char **argv,
                    struct cli_given *ret_given)
{
    struct option table[CLI_OPTIONS_MAX + 2];
    struct parse parse = {.verb = verb->name, .to = to, .given = ret_given};
    *ret_given = (struct cli_given){.option = {NULL}};
    parse.count = cli_list_options(verb->options, parse.list);
    fill_table(&parse, table);
    int status = take_defaults(&parse);
    opterr = 0;
    while (status == EXIT_DONE) {
        int index = -1;
        int option = getopt_long(argc, argv, ":h", table, &index);
        if (option == -1)
            break;
        if (option == '?' || option == ':') {
            status = refuse_option(&parse, option == ':', argv);
        } else if (index >= 0 && !is_whole(table[index].name, argv)) {
            status = cli_usage(verb->name, "write the option's name out: --%s", table[index].name);
        } else if (option == 'h') {
            help_print_verb(stdout, verb);
            status = CLI_HELPED;
        } else {
            status = take_option(&parse, (size_t)(option - FIRST_OPTION));
        }
    }
    return status == EXIT_DONE ? check_arguments(verb, argc, argv) : status;
}
