// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "engine/keeper.h"
#include "engine/server.h"
#include "tools/cli.h"
#include "tools/paths.h"
#include "tools/serve_options.h"
#include "tools/verb.h"

enum { STORE = SERVE_OPTION_END, SOCKETS, CONTROL, HANG_TIMEOUT, UPGRADE_TRIAL };
enum { HOUR_MS = 3600 * 1000 };

static const char help[] =
    "usage: faultline serve [OPTION...]\n"
    "\n"
    "Serves the page faults of VMs that are restored from the images of a store: the VMM connects "
    "to the\n"
    "socket that bears the image's name. Logs one line an event on stderr.\n"
    "\n"
    "Two processes: the keeper, which is this one, holds what must not be lost; the engine, which "
    "it "
    "starts,\n"
    "serves, and is replaced within milliseconds when it dies. SIGTERM ends both: VMs that still "
    "run "
    "are given\n"
    "all their memory first; a second SIGTERM kills them. SIGUSR1 ends the keeper alone, at once, "
    "and "
    "leaves the\n"
    "VMs to the next 'faultline serve' (see docs/operations.md).\n"
    "\n"
    "  --store DIR             default $FAULTLINE_STORE, then " DEFAULT_STORE "\n"
    "  --sockets DIR           where to make IMAGE.sock for every image (default " DEFAULT_SOCKETS
    ")\n"
    "  --control PATH          the control API's socket (default $FAULTLINE_CONTROL, then\n"
    "                          " DEFAULT_CONTROL ")\n"
    "  --hang-timeout MS       an engine that does not answer for so long is killed (default "
    "10000)\n"
    "  --upgrade-trial MS      how long an upgraded engine must live, or the old one comes back\n"
    "                          (default 10000)\n" SERVE_OPTIONS_HELP "  -h, --help\n";

struct serve {
    struct fl_server_options server;
    struct fl_keeper_options keeper;
};

// Only the last part of a path is made, with all parents for the defaults below /run.
static int make_directory(const char *path)
{
    if (strncmp(path, DEFAULT_RUN "/", sizeof(DEFAULT_RUN)) == 0 && mkdir(DEFAULT_RUN, 0755) != 0 &&
        errno != EEXIST)
        return -errno;
    return mkdir(path, 0755) == 0 || errno == EEXIST ? 0 : -errno;
}

static int take(struct serve *serve, const char *verb, int option)
{
    switch (option) {
    case STORE:
        serve->server.store = optarg;
        return EXIT_DONE;
    case SOCKETS:
        serve->server.sockets = optarg;
        return EXIT_DONE;
    case CONTROL:
        serve->server.control = optarg;
        return EXIT_DONE;
    case HANG_TIMEOUT:
    case UPGRADE_TRIAL:
        if (cli_parse_number(optarg, 1, HOUR_MS,
                             option == HANG_TIMEOUT ? &serve->keeper.hang_timeout_ms
                                                    : &serve->keeper.trial_ms) == 0)
            return EXIT_DONE;
        return cli_usage(verb, "'%s' is not a value for this option", optarg);
    default:
        return serve_option(&serve->server, verb, option);
    }
}

// EXIT_DONE with *ret_run: go on.
static int parse(int argc, char **argv, struct serve *serve, bool *ret_run)
{
    static const struct option options[] = {
        {"store", required_argument, NULL, STORE},
        {"sockets", required_argument, NULL, SOCKETS},
        {"control", required_argument, NULL, CONTROL},
        {"hang-timeout", required_argument, NULL, HANG_TIMEOUT},
        {"upgrade-trial", required_argument, NULL, UPGRADE_TRIAL},
        {"help", no_argument, NULL, 'h'},
        SERVE_OPTIONS,
        {0}};
    int option;
    *serve = (struct serve){.keeper = {.hang_timeout_ms = 10000, .trial_ms = 10000}};
    serve_options_init(&serve->server);
    serve->server.store = default_store();
    serve->server.control = default_control();
    serve->server.sockets = DEFAULT_SOCKETS;
    *ret_run = false;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        if (take(serve, "serve", option) != EXIT_DONE)
            return EXIT_USAGE;
    }
    if (optind != argc)
        return cli_usage("serve", "it takes no argument '%s'", argv[optind]);
    *ret_run = true;
    return EXIT_DONE;
}

int cmd_serve(int argc, char **argv)
{
    struct serve serve;
    bool run = false;
    int result = parse(argc, argv, &serve, &run);
    if (!run)
        return result;
    int error = make_directory(serve.server.sockets);
    if (error)
        return cli_fail_errno("serve", error, "the directory %s cannot be made",
                              serve.server.sockets);
    serve.keeper.argv = argv;
    serve.keeper.control = serve.server.control;
    serve.keeper.stop_timeout_ms = serve.server.engine.stop_timeout_ms;
    serve.keeper.fault_timeout_ms = serve.server.engine.read_timeout_ms;
    return fl_keeper_run(&serve.keeper);
}

static bool has_channel(void)
{
    int type = 0;
    socklen_t size = sizeof(type);
    return getsockopt(FL_ENGINE_CHANNEL, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
           type == SOCK_SEQPACKET;
}

// What `serve` starts, with its own options and a channel to it.
int cmd_engine(int argc, char **argv)
{
    struct serve serve;
    char reason[512];
    bool run = false;
    if (!has_channel())
        return cli_fail("engine", "it is started by 'faultline serve', not by hand");
    int result = parse(argc, argv, &serve, &run);
    if (!run)
        return result;
    serve.server.channel = FL_ENGINE_CHANNEL;
    if (fl_server_run(&serve.server, reason, sizeof(reason)) != 0)
        return cli_fail("serve", "%s", reason);
    return EXIT_DONE;
}
