// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/help.h"

#include <string.h>

enum { WIDTH = 80, LEFT = 2, RIGHT_MOST = 26, LABEL = 96, TEXT = 1024 };

// Prints text in lines of WIDTH characters, from the column where the cursor is. All lines but the
// first begin at the column `indent`. An empty line of the text stays one.
static void print_wrapped(FILE *out, const char *text, size_t indent, size_t column)
{
    while (*text) {
        size_t length = strcspn(text, " \n");
        size_t gap = column > indent ? 1 : 0;
        if (gap && column + gap + length > WIDTH) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            gap = 0;
        }
        fprintf(out, "%*s%.*s", (int)gap, "", (int)length, text);
        column += gap + length;
        text += length;
        if (strncmp(text, "\n\n", 2) == 0) {
            fprintf(out, "\n\n%*s", (int)indent, "");
            column = indent;
        }
        text += strspn(text, " \n");
    }
    fputc('\n', out);
}

void help_print_verbs(FILE *out, const struct verb *const *verbs)
{
    fputs("usage: faultline VERB [OPTION...] [ARGUMENT...]\n\nverbs:\n", out);
    for (; *verbs; verbs++) {
        if ((*verbs)->summary)
            fprintf(out, "  %-9s %s\n", (*verbs)->name, (*verbs)->summary);
    }
    fputs("\n'faultline help VERB' tells more; 'faultline --version' the version.\n", out);
}

static const char *value_of(const struct cli_option *option)
{
    return option->value ? option->value : option->choices;
}

static size_t make_label(const struct cli_option *option, char *label, size_t size)
{
    const char *value = value_of(option);
    return (size_t)snprintf(label, size, "--%s%s%s", option->name, value ? " " : "",
                            value ? value : "");
}

char *help_of_option(const struct cli_option *option, char *text, size_t size)
{
    const char *units = option->kind == CLI_KIND_MS  ? " (500ms, 90s, 30m; without a unit: ms)"
                        : option->kind == CLI_KIND_S ? " (90s, 30m, 1h; without a unit: seconds)"
                                                     : "";
    snprintf(text, size, "%s%s", option->help, units);
    return text;
}

// Puts "HELP (default: ...)" together.
static void make_text(const struct cli_option *option, char *text, size_t size)
{
    const char *preset = option->otherwise ? option->otherwise : option->preset;
    const char *file = option->by_file ? ", the configuration file" : "";
    int length = (int)strlen(help_of_option(option, text, size));
    if ((preset || option->environment) && length > 0 && (size_t)length < size)
        snprintf(text + length, size - (size_t)length, " (default: %s%s%s%s%s)",
                 option->environment ? "$" : "", option->environment ? option->environment : "",
                 file, option->environment && preset ? ", or " : "", preset ? preset : "");
}

// The column of the texts: behind the longest label that leaves room for them.
static size_t text_column(const struct cli_place *list, size_t count)
{
    size_t column = LEFT + strlen("-h, --help") + 2;
    for (size_t i = 0; i < count; i++) {
        char label[LABEL];
        size_t end = LEFT + make_label(list[i].option, label, sizeof(label)) + 2;
        if (end > column && end <= RIGHT_MOST)
            column = end;
    }
    return column;
}

static void print_entry(FILE *out, const char *label, const char *text, size_t column)
{
    size_t length = LEFT + strlen(label);
    fprintf(out, "%*s%s", LEFT, "", label);
    if (length + 2 > column)
        fprintf(out, "\n%*s", (int)column, "");
    else
        fprintf(out, "%*s", (int)(column - length), "");
    print_wrapped(out, text, column, column);
}

static void print_options(FILE *out, const struct cli_option *options)
{
    struct cli_place list[CLI_OPTIONS_MAX];
    size_t count = cli_list_options(options, list);
    size_t column = text_column(list, count);
    for (size_t i = 0; i < count; i++) {
        char label[LABEL];
        char text[TEXT];
        make_label(list[i].option, label, sizeof(label));
        make_text(list[i].option, text, sizeof(text));
        print_entry(out, label, text, column);
    }
    print_entry(out, "-h, --help", "print this help", column);
}

void help_print_verb(FILE *out, const struct verb *verb)
{
    for (unsigned i = 0; i < VERB_SYNOPSES_MAX && verb->synopsis[i]; i++)
        fprintf(out, "%s faultline %s%s%s\n", i == 0 ? "usage:" : "      ", verb->name,
                *verb->synopsis[i] ? " " : "", verb->synopsis[i]);
    fputc('\n', out);
    print_wrapped(out, verb->about, 0, 0);
    fputc('\n', out);
    if (verb->status) {
        fputs("Exit status:", out);
        print_wrapped(out, verb->status, 0, strlen("Exit status:"));
        fputc('\n', out);
    }
    print_options(out, verb->options);
}
