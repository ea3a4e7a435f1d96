// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/defaults.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/serve_config.h"
#include "tools/verbs/verbs.h"

struct arguments {
    bool json;
};

static const struct verb_argument arguments[] = {
    {.name = "check|show", .choices = "check|show"},
    {.name = "FILE", .hint = CLI_FILE},
    {.name = NULL},
};
static const struct cli_option options[] = {
    CLI_JSON(struct arguments, json),
    CLI_END,
};

// What one option is, and where that comes from.
struct shown {
    const struct cli_option *option;
    const char *value; // NULL: `otherwise` holds
    const char *from;  // "default", "file", "environment" or "option"
    unsigned line;     // of the file
};

static struct shown look_up(const struct serve_sources *sources, size_t i)
{
    const struct cli_option *option = sources->list[i].option;
    const struct conf_entry *entry = &sources->current.entry[i];
    if (sources->given.option[i])
        return (struct shown){option, sources->given.option[i], "option", 0};
    if (sources->given.environment[i])
        return (struct shown){option, sources->given.environment[i], "environment", 0};
    if (entry->value)
        return (struct shown){option, entry->value, "file", entry->line};
    if (option->kind == CLI_KIND_FLAG)
        return (struct shown){option, "off", "default", 0};
    return (struct shown){option, option->preset, "default", 0};
}

static const char *changed_at(const struct cli_option *option)
{
    return option->when == CLI_AT_RESTART ? "restart" : "reload";
}

static int print_json(const struct serve *serve, const struct serve_sources *sources)
{
    json_t *list = json_array();
    for (size_t i = 0; i < sources->count; i++) {
        struct shown shown = look_up(sources, i);
        if (shown.option->only_option)
            continue;
        json_t *object =
            json_pack("{s:s,s:s?,s:s,s:s}", "name", shown.option->name, "value", shown.value,
                      "from", shown.from, "changed_at", changed_at(shown.option));
        if (shown.line)
            json_object_set_new(object, "line", json_integer(shown.line));
        if (!shown.value && shown.option->otherwise)
            json_object_set_new(object, "otherwise", json_string(shown.option->otherwise));
        json_array_append_new(list, object);
    }
    return store_print_json(
        "config", json_pack("{s:s?,s:o}", "file", serve_config_path(serve), "options", list));
}

static void print_text(const struct serve *serve, const struct serve_sources *sources)
{
    printf("%-22s %-28s %-8s %s\n", "OPTION", "VALUE", "CHANGED", "FROM");
    for (size_t i = 0; i < sources->count; i++) {
        char value[96];
        char from[PATH_MAX + 32];
        struct shown shown = look_up(sources, i);
        if (shown.option->only_option)
            continue;
        const char *otherwise = shown.option->otherwise ? shown.option->otherwise : "none";
        if (shown.value)
            snprintf(value, sizeof(value), "%s", shown.value);
        else
            snprintf(value, sizeof(value), "(%s)", otherwise);
        if (shown.line)
            snprintf(from, sizeof(from), "%s:%u", serve_config_path(serve), shown.line);
        else
            snprintf(from, sizeof(from), "%s", shown.from);
        printf("%-22s %-28s %-8s %s\n", shown.option->name, cli_plain(value),
               changed_at(shown.option), cli_plain(from));
    }
}

// argv holds what follows "show": a file, and then options of `serve`.
static int show(bool json, const char *file, int argc, char **argv)
{
    static struct serve_sources sources;
    struct serve serve;
    char **args = calloc((size_t)argc + 4, sizeof(*args));
    int count = 0;
    if (!args)
        return cli_fail("config", "there is no memory");
    args[count++] = (char *)(uintptr_t) "config";
    if (file) {
        args[count++] = (char *)(uintptr_t) "--config";
        args[count++] = (char *)(uintptr_t)file;
    }
    for (int i = 0; i < argc; i++)
        args[count++] = argv[i];
    optind = 1;
    int status = serve_read("config", SERVE_SHOW, count, args, &serve, &sources);
    if (status == EXIT_DONE && json)
        status = print_json(&serve, &sources);
    else if (status == EXIT_DONE)
        print_text(&serve, &sources);
    free(args);
    conf_free(&sources.started);
    conf_free(&sources.current);
    return status == EXIT_USAGE && !file && argc == 0 ? EXIT_FAILED : status;
}

static int check(const char *file)
{
    const char *path = file ? file : default_config();
    if (strcmp(path, "none") == 0)
        return cli_usage("config", "there is no file to check");
    int status = serve_check_file("config", path);
    if (status == EXIT_DONE)
        printf("%s: ok\n", path);
    return status;
}

// The words before "--" are ours, and what follows are options of `serve`.
static int find_rest(int argc, char **argv)
{
    int i = 1;
    while (i < argc && strcmp(argv[i], "--") != 0)
        i++;
    return i;
}

static int cmd_config(int argc, char **argv)
{
    struct arguments args = {.json = false};
    int own = find_rest(argc, argv);
    int rest = own < argc ? own + 1 : argc;
    int status = cli_parse(&verb_config, &args, own, argv);
    if (status != EXIT_DONE)
        return status;
    const char *what = optind < own ? argv[optind] : "";
    const char *file = optind + 1 < own ? argv[optind + 1] : NULL;
    bool checks = strcmp(what, "check") == 0;
    if (!checks && strcmp(what, "show") != 0)
        return cli_usage("config",
                         *what ? "there is no 'config %s', only check and show"
                               : "check or show is needed%s",
                         what);
    if (own - optind > 2)
        return cli_usage("config", "it takes one file");
    if (checks && (args.json || rest < argc))
        return cli_usage("config", "check takes a file and nothing else");
    return checks ? check(file) : show(args.json, file, argc - rest, argv + rest);
}

const struct verb verb_config = {
    .name = "config",
    .run = cmd_config,
    .summary = "check the server's configuration file, or show what holds",
    .synopsis = {"check [FILE]", "show [--json] [FILE] [-- SERVE-OPTION...]"},
    .about = "check reads the configuration file as a server would, and names each line that is "
             "wrong. show prints each option of 'faultline serve': its value, where that comes "
             "from (default, a line of the file, the environment or an option), and whether a "
             "reload takes up a change of it in the file, or only a restart.\n\n"
             "FILE is $FAULTLINE_CONFIG or /etc/faultline/faultline.conf unless it is given. "
             "Options of 'faultline serve' that follow -- are taken as if it was started with "
             "them.",
    .status = "0 if all is right, 1 if something in the file is wrong.",
    .arguments = arguments,
    .options = options,
};
