// SPDX-License-Identifier: Apache-2.0
//
// Reads the options of a verb. For the main thread: getopt() has global state.
#ifndef FAULTLINE_TOOLS_CLI_PARSE_H
#define FAULTLINE_TOOLS_CLI_PARSE_H

#include "tools/cli/verb.h"

// Gives every option of the verb that has a default its default, and then the values that argv has,
// in the structure `to`. The verb's arguments then begin at getopt's optind. An option's name must
// be written out. Returns EXIT_DONE; CLI_HELPED if it has printed the verb's help ("-h", "--help");
// EXIT_USAGE after a sentence.
int cli_parse(const struct verb *verb, void *to, int argc, char **argv);

// What the command line and the environment say of each option of a verb, in the order of
// cli_list_options(); "on" for a flag; NULL: nothing.
struct cli_given {
    const char *option[CLI_OPTIONS_MAX];
    const char *environment[CLI_OPTIONS_MAX];
};
// Does the same, and tells that.
int cli_parse_given(const struct verb *verb, void *to, int argc, char **argv,
                    struct cli_given *ret_given);

enum { CLI_HELPED = -1 }; // a verb returns it as it is; see verb_run()

#endif
