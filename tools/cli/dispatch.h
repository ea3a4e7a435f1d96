// SPDX-License-Identifier: Apache-2.0
//
// Finds and runs one verb of a table.
#ifndef FAULTLINE_TOOLS_CLI_DISPATCH_H
#define FAULTLINE_TOOLS_CLI_DISPATCH_H

#include "tools/cli/verb.h"

// Runs the verb that argv[1] names, or answers --help and --version. The table ends with NULL.
// Returns the exit status of the process.
int verb_run(const struct verb *const *verbs, int argc, char **argv);

// Returns the verb of this name, or NULL.
const struct verb *verb_find(const struct verb *const *verbs, const char *name);

#endif
