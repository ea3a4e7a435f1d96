// SPDX-License-Identifier: Apache-2.0
//
// Help as text, in lines of 80 characters, and as JSON, from which man pages and completions are
// made.
#ifndef FAULTLINE_TOOLS_CLI_HELP_H
#define FAULTLINE_TOOLS_CLI_HELP_H

#include <jansson.h>
#include <stdio.h>

#include "tools/cli/verb.h"

// Prints the list of verbs. The table ends with NULL.
void help_print_verbs(FILE *out, const struct verb *const *verbs);
// Prints the help of a verb.
void help_print_verb(FILE *out, const struct verb *verb);

// Writes what an option does into text; of a time also how it can be written. Returns text.
char *help_of_option(const struct cli_option *option, char *text, size_t size);
// Returns what is known of a verb, as docs/json.md says, or NULL without memory. The caller owns
// it.
json_t *help_verb_json(const struct verb *verb);

#endif
