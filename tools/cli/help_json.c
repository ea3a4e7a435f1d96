// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/help.h"

#include <string.h>

enum { HELP_TEXT = 1024 };

static const char *hint_name(enum cli_hint hint)
{
    static const char *const names[] = {
        [CLI_ANYTHING] = "",   [CLI_FILE] = "file",       [CLI_DIRECTORY] = "directory",
        [CLI_IMAGE] = "image", [CLI_PROCESS] = "process", [CLI_VERB] = "verb",
    };
    return names[hint];
}

// Returns the words between the bars of "on|off".
static json_t *choices_json(const char *choices)
{
    json_t *array = json_array();
    while (choices && *choices) {
        size_t length = strcspn(choices, "|");
        json_array_append_new(array, json_stringn(choices, length));
        choices += length + (choices[length] == '|');
    }
    return array;
}

static json_t *option_json(const struct cli_option *option)
{
    char help[HELP_TEXT];
    const char *value = option->value ? option->value : option->choices;
    static const char *const whens[] = {
        [CLI_AT_ENGINE] = "engine", [CLI_AT_RELOAD] = "reload", [CLI_AT_RESTART] = "restart"};
    return json_pack("{s:s,s:b,s:b,s:s,s:s?,s:s,s:s?,s:s?,s:s?,s:o,s:s}", "name", option->name,
                     "in_file", !option->only_option, "by_file", (int)option->by_file, "changed_at",
                     whens[option->when], "value", value, "help",
                     help_of_option(option, help, sizeof(help)), "default", option->preset,
                     "otherwise", option->otherwise, "environment", option->environment, "choices",
                     choices_json(option->choices), "names", hint_name(option->hint));
}

static json_t *options_json(const struct cli_option *options)
{
    struct cli_place list[CLI_OPTIONS_MAX];
    size_t count = cli_list_options(options, list);
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, option_json(list[i].option));
    json_array_append_new(array,
                          json_pack("{s:s,s:b,s:s,s:n,s:s,s:n,s:n,s:n,s:[],s:s}", "name", "help",
                                    "in_file", 0, "short", "h", "value", "help", "print this help",
                                    "default", "otherwise", "environment", "choices", "names", ""));
    return array;
}

static json_t *arguments_json(const struct verb_argument *arguments)
{
    json_t *array = json_array();
    for (; arguments && arguments->name; arguments++)
        json_array_append_new(array,
                              json_pack("{s:s,s:o,s:s,s:b}", "name", arguments->name, "choices",
                                        choices_json(arguments->choices), "names",
                                        hint_name(arguments->hint), "many", (int)arguments->many));
    return array;
}

json_t *help_verb_json(const struct verb *verb)
{
    json_t *synopsis = json_array();
    for (unsigned i = 0; i < VERB_SYNOPSES_MAX && verb->synopsis[i]; i++)
        json_array_append_new(synopsis, json_string(verb->synopsis[i]));
    return json_pack("{s:s,s:s,s:o,s:s,s:s?,s:o,s:o}", "name", verb->name, "summary", verb->summary,
                     "synopsis", synopsis, "about", verb->about, "exit_status", verb->status,
                     "arguments", arguments_json(verb->arguments), "options",
                     options_json(verb->options));
}
