// SPDX-License-Identifier: Apache-2.0
//
// What a verb of the command is: what runs it, and all that is said about it. `faultline --help`,
// the help of the verb, its man page and its completion are made from this.
#ifndef FAULTLINE_TOOLS_CLI_VERB_H
#define FAULTLINE_TOOLS_CLI_VERB_H

#include "tools/cli/option.h"

enum { VERB_SYNOPSES_MAX = 4 };

// A word on the command line that is no option. A table ends with an entry without a name.
struct verb_argument {
    const char *name; // such as "IMAGE"
    enum cli_hint hint;
    const char *choices; // all its values, such as "show|rm"
    bool many;           // it can be repeated
};

struct verb {
    const char *name;
    // Gets the arguments from the verb's name on. Returns an exit status, or CLI_HELPED.
    int (*run)(int argc, char **argv);
    const char *summary;                     // one line of the help; NULL: users do not call it
    const char *synopsis[VERB_SYNOPSES_MAX]; // each without "faultline VERB"
    const char *about;                       // sentences; an empty line begins a paragraph
    const char *status;                      // exit statuses; NULL: 0, or 1 after a sentence
    const struct verb_argument *arguments;   // NULL: none
    const struct cli_option *options;
};

#endif
