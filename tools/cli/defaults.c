// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/defaults.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli/conf.h"
#include "tools/cli/paths.h"

enum { KEPT_MAX = 8 };

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

const char *default_from_environment(const struct cli_option *option)
{
    return option->environment ? variable(option->environment) : NULL;
}

const char *default_config(void)
{
    const char *path = variable("FAULTLINE_CONFIG");
    return path ? path : DEFAULT_CONFIG;
}

bool default_published(char *ret_path, size_t size)
{
    const char *directory = variable("RUNTIME_DIRECTORY"); // several are separated by colons
    if (!directory)
        return false;
    int length =
        snprintf(ret_path, size, "%.*s/" CONTROL_NAME, (int)strcspn(directory, ":"), directory);
    return length < (int)size;
}

// systemd sets MAINPID for the ExecReload= of a unit that runs, and for what else it runs then. A
// socket of that name in the directory of another unit would be another program's.
static const char *published_control(void)
{
    static char path[PATH_MAX];
    bool there =
        variable("MAINPID") && default_published(path, sizeof(path)) && access(path, F_OK) == 0;
    return there ? path : NULL;
}

// Keeps the text, so that it is known to be in use.
static const char *keep(char *text)
{
    static char *kept[KEPT_MAX];
    static unsigned count;
    if (!text || count == KEPT_MAX)
        return text;
    kept[count] = text;
    return kept[count++];
}

const char *default_value(const struct cli_option *option)
{
    const char *value = NULL;
    if (option->by_file && strcmp(option->name, "control") == 0)
        value = published_control();
    if (!value && option->by_file && strcmp(default_config(), "none") != 0)
        value = keep(conf_find(default_config(), option));
    return value ? value : option->preset;
}
