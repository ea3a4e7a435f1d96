// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/dispatch.h"

#include <faultline_version.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/help.h"
#include "tools/cli/parse.h"

static bool asks_for_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

const struct verb *verb_find(const struct verb *const *verbs, const char *name)
{
    while (*verbs && strcmp((*verbs)->name, name) != 0)
        verbs++;
    return *verbs;
}

int verb_run(const struct verb *const *verbs, int argc, char **argv)
{
    if (argc < 2) {
        help_print_verbs(stderr, verbs);
        return EXIT_USAGE;
    }
    if (asks_for_help(argv[1])) {
        help_print_verbs(stdout, verbs);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("faultline " FAULTLINE_VERSION);
        return EXIT_DONE;
    }
    const struct verb *verb = verb_find(verbs, argv[1]);
    if (verb) {
        int status = verb->run(argc - 1, argv + 1);
        return status == CLI_HELPED ? EXIT_DONE : status;
    }
    fprintf(stderr, "faultline: there is no verb '%s' (see faultline --help)\n",
            cli_plain(argv[1]));
    return EXIT_USAGE;
}
