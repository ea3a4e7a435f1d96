// SPDX-License-Identifier: Apache-2.0
//
// Runs one verb of a table. The same table is the list that `faultline --help` prints.
#ifndef FAULTLINE_TOOLS_CLI_VERB_H
#define FAULTLINE_TOOLS_CLI_VERB_H

#include <stddef.h>

struct verb {
    const char *name;
    // Gets the arguments from the verb's name on. Returns an exit status, or CLI_HELPED.
    int (*run)(int argc, char **argv);
    const char *summary; // one line of the help; NULL: not listed
};

// Runs the verb that argv[1] names, or answers --help and --version. Returns the exit status of the
// process.
int verb_run(const struct verb *verbs, size_t count, int argc, char **argv);

#endif
