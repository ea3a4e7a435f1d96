// SPDX-License-Identifier: Apache-2.0
//
// What an option is that was not given: its variable's value, else what the server's configuration
// file says if the option is one of those that any verb takes from there, else its default.
#ifndef FAULTLINE_TOOLS_CLI_DEFAULTS_H
#define FAULTLINE_TOOLS_CLI_DEFAULTS_H

#include "tools/cli/option.h"

// Return NULL if there is none. The texts live as long as the process.
const char *default_from_environment(const struct cli_option *option);
const char *default_value(const struct cli_option *option);

// The path of the configuration file, unless an option says otherwise; "none": there is none.
const char *default_config(void);

// Where a server that runs as a unit of systemd publishes its control socket, whatever path that
// has, for its ExecReload= and for people: a link in the unit's RuntimeDirectory=. Returns false if
// the process is of no unit that has such a directory.
bool default_published(char *ret_path, size_t size);

#endif
