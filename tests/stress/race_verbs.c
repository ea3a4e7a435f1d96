// SPDX-License-Identifier: Apache-2.0
#include "tests/stress/race_verbs.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/stress/race_contents.h"
#include "tests/unit/snapshot_support.h"

enum { ARGS = 12, ANSWERS = 6, WRONG = 99 };

// What may be said by who finds that another was faster.
#define NO_IMAGE "has no image '"
#define NO_TRACE "has no trace"
#define OTHER_TRACE "it was recorded from other content"
#define REPLACED "as it is now: it was replaced"
#define MEANWHILE "was replaced or removed meanwhile; nothing was changed"

// PACK_LIVE is a program of its own (tests/crash/pack_live.c), not a verb.
enum what { COMMAND, LIVE, READ, RECORD, UNPACK };

// Arguments that begin with @ stand for something of the order. An exit with 1 has to have one of
// the answers.
static const struct verb {
    const char *says; // its name
    unsigned weight;
    enum what what;
    const char *args[ARGS];
    const char *answers[ANSWERS];
} verbs[] = {
    {"pack", 4, COMMAND, {"pack", "--name", "@name", "@memory"}, {"has an image '"}},
    {"pack --replace", 7, COMMAND, {"pack", "--replace", "--name", "@name", "@memory"}, {NULL}},
    {"pack --trace",
     6,
     COMMAND,
     {"pack", "--replace", "--trace", "@source", "--name", "@name", "@memory"},
     {NO_IMAGE, NO_TRACE, OTHER_TRACE, REPLACED, MEANWHILE}},
    {"pack live",
     7,
     LIVE,
     {"@store", "@name", "@memory", "@source", "@source-memory", "replace"},
     {NULL}},
    {"optimize", 8, COMMAND, {"optimize", "@name"}, {NO_IMAGE, NO_TRACE, OTHER_TRACE, MEANWHILE}},
    {"gc", 6, COMMAND, {"gc"}, {NULL}},
    {"gc --dry-run", 1, COMMAND, {"gc", "--dry-run"}, {NULL}},
    {"gc --compact", 4, COMMAND, {"gc", "--compact", "1"}, {NULL}},
    {"recompress", 4, COMMAND, {"recompress", "--level", "1", "@name"}, {NO_IMAGE}},
    {"recompress --codec lz4", 3, COMMAND, {"recompress", "--codec", "lz4", "--all"}, {NULL}},
    {"gc --rebuild-index", 1, COMMAND, {"gc", "--rebuild-index"}, {NULL}},
    {"rm", 5, COMMAND, {"rm", "@name"}, {NO_IMAGE}},
    {"trace rm", 3, COMMAND, {"trace", "rm", "@name"}, {NO_TRACE}},
    {"verify", 3, COMMAND, {"verify"}, {NULL}},
    {"verify IMAGE", 1, COMMAND, {"verify", "@name"}, {"the store has no such image"}},
    {"ls", 2, COMMAND, {"ls"}, {NULL}},
    {"inspect", 2, COMMAND, {"inspect", "@name"}, {NO_IMAGE}},
    {"unpack", 3, UNPACK, {"unpack", "--force", "@name", "@output"}, {NO_IMAGE}},
    {"unpack --with",
     4,
     UNPACK,
     {"unpack", "--force", "--with", "@companion", "@name"},
     {NO_IMAGE, "has no companion 'memory'"}},
    {"read", 4, READ, {NULL}, {NULL}},
    {"record", 7, RECORD, {NULL}, {NULL}},
};
enum { VERBS = sizeof(verbs) / sizeof(verbs[0]) };

void race_order_choose(struct race_order *order)
{
    unsigned total = 0;
    unsigned i = 0;
    for (unsigned k = 0; k < VERBS; k++)
        total += verbs[k].weight;
    unsigned dice = (unsigned)(test_random(&order->seed) % total);
    for (; dice >= verbs[i].weight; i++)
        dice -= verbs[i].weight;
    order->verb = verbs[i].says;
    order->content = (unsigned)(test_random(&order->seed) % RACE_CONTENTS);
    order->name = order->content % RACE_NAMES;
}

static const struct verb *verb_of(const struct race_order *order)
{
    const struct verb *verb = verbs;
    while (strcmp(verb->says, order->verb) != 0)
        verb++;
    return verb;
}

static const char *fill_in(const struct race_order *order, const char *arg)
{
    static struct race_path name;
    static struct race_path memory;
    static struct race_path source;
    static struct race_path source_memory;
    static struct race_path companion;
    name = race_name(order->name);
    memory = race_memory(order->dir, order->content);
    source = race_source(order->content);
    source_memory = race_source_memory(order->dir, order->content);
    snprintf(companion.text, sizeof(companion.text), "memory=%s", order->output);
    return strcmp(arg, "@name") == 0            ? name.text
           : strcmp(arg, "@memory") == 0        ? memory.text
           : strcmp(arg, "@source") == 0        ? source.text
           : strcmp(arg, "@source-memory") == 0 ? source_memory.text
           : strcmp(arg, "@companion") == 0     ? companion.text
           : strcmp(arg, "@store") == 0         ? order->store
           : strcmp(arg, "@output") == 0        ? order->output
                                                : arg;
}

_Noreturn static void run_command(const struct race_order *order, const struct verb *verb)
{
    const char *given = getenv("FAULTLINE_BIN");
    const char *args[ARGS + 1] = {verb->what == LIVE ? PACK_LIVE
                                  : given            ? given
                                                     : FAULTLINE_DEFAULT};
    for (unsigned i = 0; i < ARGS && verb->args[i]; i++)
        args[i + 1] = fill_in(order, verb->args[i]);
    setenv("FAULTLINE_STORE", order->store, 1);
    execv(args[0], (char *const *)(uintptr_t)args);
    _exit(127);
}

void race_order_run(const struct race_order *order)
{
    const struct verb *verb = verb_of(order);
    sigset_t none;
    sigemptyset(&none);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int log = open(order->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    if (verb->what == READ)
        _exit(race_read(order->dir, order->store, order->name) ? 0 : WRONG);
    if (verb->what == RECORD)
        _exit(race_record(order->dir, order->store, order->name, order->seed) ? 0 : WRONG);
    run_command(order, verb);
}

static void read_log(const struct race_order *order, char *text, size_t size)
{
    FILE *log = fopen(order->log, "re");
    size_t len = log ? fread(text, 1, size - 1, log) : 0;
    text[len] = '\0';
    if (log)
        fclose(log);
}

static bool may_say(const struct verb *verb, const char *text)
{
    for (unsigned i = 0; i < ANSWERS && verb->answers[i]; i++) {
        if (strstr(text, verb->answers[i]))
            return true;
    }
    return false;
}

bool race_order_check(const struct race_order *order, int status, bool killed)
{
    const struct verb *verb = verb_of(order);
    char text[4096];
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && killed)
        return true;
    read_log(order, text, sizeof(text));
    bool right =
        status == 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 1 && may_say(verb, text));
    if (right && status == 0 && verb->what == UNPACK)
        right = race_is_memory(order->dir, order->output, order->name);
    if (!right)
        fprintf(stderr, "store_race: '%s' of image-%u, content %u, ended with %x:\n%s", order->verb,
                order->name, order->content, (unsigned)status, text);
    return right;
}
