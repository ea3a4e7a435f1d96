// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/verb.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"

static void print_verbs(FILE *out, const struct verb *verbs, size_t count)
{
    fputs("usage: faultline VERB [OPTION...] [ARGUMENT...]\n\nverbs:\n", out);
    for (size_t i = 0; i < count; i++) {
        if (verbs[i].summary)
            fprintf(out, "  %-9s %s\n", verbs[i].name, verbs[i].summary);
    }
    fputs("\n'faultline VERB --help' tells more; 'faultline --version' the version.\n", out);
}

static bool asks_for_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

int verb_run(const struct verb *verbs, size_t count, int argc, char **argv)
{
    if (argc < 2) {
        print_verbs(stderr, verbs, count);
        return EXIT_USAGE;
    }
    if (asks_for_help(argv[1])) {
        print_verbs(stdout, verbs, count);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("faultline " FAULTLINE_VERSION);
        return EXIT_DONE;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(argv[1], verbs[i].name) == 0) {
            int status = verbs[i].run(argc - 1, argv + 1);
            return status == CLI_HELPED ? EXIT_DONE : status;
        }
    }
    fprintf(stderr, "faultline: there is no verb '%s' (see faultline --help)\n",
            cli_plain(argv[1]));
    return EXIT_USAGE;
}
