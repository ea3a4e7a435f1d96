// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/verbs/serve_config.h"
#include "tools/verbs/verbs.h"

enum { LOOK_EVERY_MS = 50 };

struct order {
    const char *control;
    const char *engine;
    bool keeper;
    bool json;
};

static const struct cli_option options[] = {
    CLI_TEXT(struct order, engine, .name = "engine", .value = "PATH", .hint = CLI_FILE,
             .help = "the new 'faultline'",
             .otherwise = "the file that the server was started from"),
    CLI_FLAG(struct order, keeper, .name = "keeper",
             .help = "replace the keeper as well, after the engine's trial"),
    CLI_FLAG(struct order, json, .name = "json",
             .help = "print the outcome as JSON (docs/json.md)"),
    CLI_CONTROL(struct order, control),
    CLI_END,
};

// Returns the state of the upgrade, which belongs to status, or NULL after a sentence.
static const json_t *upgrade_of(const json_t *status)
{
    const json_t *upgrade = json_object_get(json_object_get(status, "keeper"), "upgrade");
    if (!upgrade)
        cli_fail("upgrade", "the engine has no keeper: start 'faultline serve' again first");
    return upgrade;
}

static json_int_t count_of(const json_t *upgrade)
{
    return json_integer_value(json_object_get(upgrade, "count"));
}

static const char *state_of(const json_t *upgrade)
{
    const char *state = json_string_value(json_object_get(upgrade, "state"));
    return state ? state : "";
}

static bool is_final(const char *state)
{
    return strcmp(state, "done") == 0 || strcmp(state, "failed") == 0 ||
           strcmp(state, "rolled_back") == 0;
}

static int tell_outcome(const struct order *order, const json_t *upgrade)
{
    const char *state = state_of(upgrade);
    const char *reason = json_string_value(json_object_get(upgrade, "reason"));
    bool done = strcmp(state, "done") == 0;
    if (order->json) {
        json_dumpf(upgrade, stdout, JSON_INDENT(2));
        putchar('\n');
        return done ? EXIT_DONE : EXIT_FAILED;
    }
    if (!done)
        return cli_fail("upgrade", "%s: %s", state, reason ? reason : "");
    puts("done: the new engine serves");
    return EXIT_DONE;
}

// A reload takes up the configuration file. What is wrong there is said before anything is ordered,
// since only we are there to hear it; the new engine would refuse it as well.
static int check_config(const struct order *order, const json_t *status)
{
    const char *path =
        json_string_value(json_object_get(json_object_get(status, "config"), "file"));
    if (order->engine || !path || access(path, R_OK) != 0)
        return EXIT_DONE;
    return serve_check_file("upgrade", path);
}

// Says which options were changed in the configuration file and are as they were.
static void tell_waits(const json_t *status)
{
    const json_t *config = json_object_get(status, "config");
    const json_t *name;
    size_t i;
    json_array_foreach(json_object_get(config, "waits_for_restart"), i, name)
        cli_warn("upgrade", "%s was changed in %s, which waits for a restart",
                 json_string_value(name), json_string_value(json_object_get(config, "file")));
}

// Asks until the state is final. Each answer may come from another engine.
static int wait_for_outcome(const struct order *order, json_int_t before)
{
    char shown[32] = "";
    for (;;) {
        json_t *status = NULL;
        int result = control_ask("upgrade", order->control, "/v1/status", NULL, &status);
        if (result != EXIT_DONE)
            return result;
        const json_t *upgrade = upgrade_of(status);
        const char *state = upgrade ? state_of(upgrade) : "";
        bool ours = upgrade && count_of(upgrade) > before;
        if (ours && !order->json && strcmp(state, shown) != 0 && !is_final(state))
            fprintf(stderr, "%s\n", state);
        if (ours)
            snprintf(shown, sizeof(shown), "%s", state);
        if (!upgrade || (ours && is_final(state)))
            result = upgrade ? tell_outcome(order, upgrade) : EXIT_FAILED;
        if (ours && is_final(state) && !order->json)
            tell_waits(status);
        bool ended = !upgrade || (ours && is_final(state));
        json_decref(status);
        if (ended)
            return result;
        poll(NULL, 0, LOOK_EVERY_MS);
    }
}

static int order_upgrade(const struct order *order)
{
    char path[PATH_MAX] = "";
    json_t *status = NULL;
    if (order->engine && !realpath(order->engine, path))
        return cli_fail("upgrade", "there is no file %s", order->engine);
    int result = control_ask("upgrade", order->control, "/v1/status", NULL, &status);
    if (result != EXIT_DONE)
        return result;
    const json_t *before = upgrade_of(status);
    if (before && check_config(order, status) != EXIT_DONE)
        before = NULL;
    json_int_t count = before ? count_of(before) : 0;
    json_decref(status);
    if (!before)
        return EXIT_FAILED;
    json_t *body = json_pack("{s:s, s:b}", "engine", path, "keeper", order->keeper);
    json_t *answer = NULL;
    result = control_ask("upgrade", order->control, "/v1/upgrade", body, &answer);
    json_decref(body);
    json_decref(answer);
    return result == EXIT_DONE ? wait_for_outcome(order, count) : result;
}

static int cmd_upgrade(int argc, char **argv)
{
    struct order order = {.control = NULL};
    int status = cli_parse(&verb_upgrade, &order, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (optind != argc)
        return cli_usage("upgrade", "it takes no argument '%s'", argv[optind]);
    return order_upgrade(&order);
}

const struct verb verb_upgrade = {
    .name = "upgrade",
    .run = cmd_upgrade,
    .summary = "replace a running server's engine without a pause",
    .synopsis = {"[OPTION...]"},
    .about = "Replaces the engine of a running server. The new engine is started "
             "beside the old one, and takes over all VMs within milliseconds when it "
             "is ready. If it does not get ready, or dies during its trial, the old "
             "version serves again. Waits for the outcome.",
    .status = "0 if the new engine has passed its trial, 1 if not.",
    .options = options,
};
