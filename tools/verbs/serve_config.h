// SPDX-License-Identifier: Apache-2.0
//
// What `faultline serve` is told by its options and by the configuration file.
#ifndef FAULTLINE_TOOLS_VERBS_SERVE_CONFIG_H
#define FAULTLINE_TOOLS_VERBS_SERVE_CONFIG_H

#include "engine/keeper/keeper_options.h"
#include "engine/server/server.h"
#include "tools/cli/conf.h"
#include "tools/cli/parse.h"

struct serve {
    struct fl_server_options server;
    struct fl_keeper_options keeper;
    const char *config; // --config
};

// Where each value comes from. What the file says is in two parts: options that VMs depend on stay
// as they were when the server was started, the others are as they were at the last reload.
struct serve_sources {
    struct cli_place list[CLI_OPTIONS_MAX];
    size_t count;
    struct cli_given given;
    struct conf started, current;
};

enum serve_role {
    SERVE_KEEPER, // reads the file, unless a keeper before this one has passed it on
    SERVE_ENGINE, // gets it from its keeper
    SERVE_SHOW,   // reads the file, and passes nothing on
};

// Reads options, the file and the environment. Returns EXIT_DONE; CLI_HELPED; or another exit
// status after a sentence. The sources must live as long as the values. For a keeper, the settings
// are in serve->keeper.
int serve_read(const char *verb, enum serve_role role, int argc, char **argv, struct serve *serve,
               struct serve_sources *ret_sources);

// Checks a file as serve_read() would, and prints a sentence with file and line for each thing that
// is wrong. Returns EXIT_DONE or EXIT_FAILED; what is in no file at all is EXIT_FAILED as well.
int serve_check_file(const char *verb, const char *path);

// Returns the path of the file that is used, or NULL.
const char *serve_config_path(const struct serve *serve);

#endif
