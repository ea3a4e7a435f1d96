// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/serve_config.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/host/fuse_mounter.h"
#include "engine/keeper/keeper.h"
#include "tools/cli/cli.h"
#include "tools/cli/defaults.h"
#include "tools/cli/exit_status.h"
#include "tools/verbs/serve_options.h"
#include "tools/verbs/verbs.h"

enum { WAITS = 256 };

const char *serve_config_path(const struct serve *serve)
{
    return strcmp(serve->config, "none") == 0 ? NULL : serve->config;
}

// Returns a sentence that says how two options contradict each other, or NULL.
static const char *contradiction(const struct serve *serve)
{
    const struct fl_engine_options *engine = &serve->server.engine;
    return engine->prealloc_bytes > engine->cache_bytes ? "--cache-prealloc is more than --cache"
                                                        : NULL;
}

// --- the file's bytes ---

static int fail_file(const char *verb, const char *path, int error)
{
    if (error == -EFBIG)
        return cli_fail(verb, "the configuration file %s has more than a megabyte", path);
    return cli_fail_errno(verb, error, "cannot read the configuration file %s", path);
}

// A successor holds VMs, and serves them all the same.
static bool must_go_on(enum serve_role role)
{
    return role == SERVE_KEEPER && fl_keeper_is_successor();
}

// Sets serve->keeper.settings. Returns EXIT_DONE, or EXIT_FAILED after a sentence.
static int get_settings(const char *verb, enum serve_role role, struct serve *serve)
{
    struct fl_settings *settings = &serve->keeper.settings;
    const char *path = serve_config_path(serve);
    if (role != SERVE_SHOW && fl_settings_inherit(settings))
        return EXIT_DONE;
    // A keeper of a version that knows no configuration file has started this engine.
    if (role == SERVE_ENGINE)
        path = NULL;
    int error = fl_settings_read(path, serve->keeper.config_must_exist, &settings->started);
    if (error)
        fail_file(verb, path, error);
    if (error && must_go_on(role))
        error = fl_settings_read(NULL, false, &settings->started);
    settings->current = settings->started;
    return error ? EXIT_FAILED : EXIT_DONE;
}

static void say_wrong(void *verb, const char *path, unsigned line, const char *sentence)
{
    cli_warn(verb, "%s:%u: %s", path, line, sentence);
}

static void say_nothing(void *arg, const char *path, unsigned line, const char *sentence)
{
    (void)arg;
    (void)path;
    (void)line;
    (void)sentence;
}

static int read_settings(const char *path, int fd, const struct serve_sources *sources,
                         conf_report *report, const char *verb, struct conf *ret_conf)
{
    char *text = NULL;
    size_t bytes = 0;
    int error = conf_load(fd, &text, &bytes);
    if (!error)
        error = conf_read(path ? path : "", text, bytes, sources->list, sources->count, report,
                          (void *)(uintptr_t)verb, ret_conf);
    free(text);
    return error;
}

// What is right in the file, for engines: they would refuse what is wrong.
static int keep_what_is_right(struct serve *serve, const struct serve_sources *sources)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return -ENOMEM;
    for (size_t i = 0; i < sources->count; i++) {
        if (sources->current.entry[i].value)
            fprintf(out, "%s = %s\n", sources->list[i].option->name,
                    sources->current.entry[i].value);
    }
    int error = fclose(out) == 0 ? 0 : -ENOMEM;
    struct fl_settings right = {-1, -1};
    if (!error)
        error = fl_settings_make(text, bytes, &right.current);
    free(text);
    if (error)
        return error;
    struct fl_settings *settings = &serve->keeper.settings;
    right.started = settings->started == settings->current ? right.current : settings->started;
    if (right.started != settings->started)
        close(settings->started);
    else
        close(settings->current);
    *settings = right;
    return 0;
}

// --- values ---

// Options that wait for a restart, as "a b".
static const char *find_waits(const struct serve_sources *sources)
{
    static char names[WAITS];
    size_t used = 0;
    names[0] = '\0';
    for (size_t i = 0; i < sources->count; i++) {
        const char *before = sources->started.entry[i].value;
        const char *now = sources->current.entry[i].value;
        bool same = before && now ? strcmp(before, now) == 0 : before == now;
        const char *name = sources->list[i].option->name;
        if (same || sources->list[i].option->when != CLI_AT_RESTART || sources->given.option[i] ||
            sources->given.environment[i] || used + strlen(name) + 2 > sizeof(names))
            continue;
        used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", used ? " " : "", name);
    }
    return names;
}

static void apply_file(struct serve *serve, const struct serve_sources *sources)
{
    char wrong[CLI_WRONG_BYTES];
    for (size_t i = 0; i < sources->count; i++) {
        const struct cli_option *option = sources->list[i].option;
        const struct conf *conf =
            option->when == CLI_AT_RESTART ? &sources->started : &sources->current;
        if (!sources->given.option[i] && !sources->given.environment[i] && conf->entry[i].value)
            conf_take(option, (char *)serve + sources->list[i].at, conf->entry[i].value, wrong);
    }
}

static bool is_given(const struct serve_sources *sources, const char *name)
{
    for (size_t i = 0; i < sources->count; i++) {
        if (strcmp(sources->list[i].option->name, name) == 0)
            return sources->given.option[i] || sources->given.environment[i];
    }
    return false;
}

// Reads what the settings say. What an earlier version has written into those of the start is not
// judged again.
static int take_settings(const char *verb, enum serve_role role, struct serve *serve,
                         struct serve_sources *sources)
{
    const char *path = serve_config_path(serve);
    const struct fl_settings *settings = &serve->keeper.settings;
    int error = read_settings(path, settings->current, sources, say_wrong, verb, &sources->current);
    if (!error)
        error =
            read_settings(path, settings->started, sources, say_nothing, verb, &sources->started);
    if (!error && sources->current.wrong && must_go_on(role))
        error = keep_what_is_right(serve, sources);
    else if (!error && sources->current.wrong)
        return EXIT_USAGE;
    if (error)
        return cli_fail_errno(verb, error, "cannot take over the configuration file");
    apply_file(serve, sources);
    serve->server.engine.config = path;
    serve->server.engine.config_waits = find_waits(sources);
    return EXIT_DONE;
}

// A keeper that goes on with options that contradict each other has engines that do so, too; no
// other engine does, so that a reload with such a file is refused.
static int settle(const char *verb, enum serve_role role, struct serve *serve)
{
    static const char goes_on[] = "FAULTLINE_GO_ON";
    const char *wrong = contradiction(serve);
    if (role == SERVE_KEEPER)
        unsetenv(goes_on);
    if (!wrong)
        return EXIT_DONE;
    if (!must_go_on(role) && !(role == SERVE_ENGINE && getenv(goes_on)))
        return cli_usage(verb, "%s", wrong);
    cli_warn(verb, "%s", wrong);
    serve->server.engine.prealloc_bytes = serve->server.engine.cache_bytes;
    if (role == SERVE_KEEPER)
        setenv(goes_on, "1", 1);
    return EXIT_DONE;
}

int serve_read(const char *verb, enum serve_role role, int argc, char **argv, struct serve *serve,
               struct serve_sources *ret_sources)
{
    *serve = (struct serve){.server = {.channel = -1}, .keeper.settings = {-1, -1}};
    serve_options_init(&serve->server);
    ret_sources->count = cli_list_options(verb_serve.options, ret_sources->list);
    int status = cli_parse_given(&verb_serve, serve, argc, argv, &ret_sources->given);
    if (status != EXIT_DONE)
        return status;
    if (optind != argc)
        return cli_usage(verb, "it takes no argument '%s'", argv[optind]);
    serve->keeper.config = serve_config_path(serve);
    serve->keeper.config_must_exist = is_given(ret_sources, "config");
    status = get_settings(verb, role, serve);
    if (status == EXIT_DONE)
        status = take_settings(verb, role, serve, ret_sources);
    if (status == EXIT_DONE && role != SERVE_KEEPER)
        fl_settings_close(&serve->keeper.settings);
    return status == EXIT_DONE ? settle(verb, role, serve) : status;
}

int serve_check_file(const char *verb, const char *path)
{
    struct serve serve;
    struct serve_sources *sources = calloc(1, sizeof(*sources));
    char *argv[] = {(char *)(uintptr_t) "serve", (char *)(uintptr_t) "--config",
                    (char *)(uintptr_t)path, NULL};
    if (!sources)
        return cli_fail(verb, "there is no memory");
    optind = 1;
    int status = serve_read(verb, SERVE_SHOW, 3, argv, &serve, sources);
    const char *metrics = status == EXIT_DONE ? serve.server.api.place[FL_DOOR_METRICS] : NULL;
    if (metrics && !strchr(metrics, '/'))
        cli_warn(verb,
                 "metrics = %s is an address, and the shipped unit has no network: it needs the "
                 "drop-in metrics-tcp.conf (docs/security.md)",
                 metrics);
    const char *files = status == EXIT_DONE ? serve.server.files : NULL;
    if (files && access(FL_FUSE_MOUNTER_SOCKET, F_OK) != 0)
        cli_warn(verb,
                 "files = %s, and the shipped unit may not mount: it needs 'systemctl enable --now "
                 "faultline-files.socket', which mounts at /run/faultline-files (docs/files.md)",
                 files);
    conf_free(&sources->started);
    conf_free(&sources->current);
    free(sources);
    return status == EXIT_DONE ? EXIT_DONE : EXIT_FAILED;
}
