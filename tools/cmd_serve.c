// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/server.h"
#include "tools/cli.h"
#include "tools/paths.h"
#include "tools/serve_options.h"
#include "tools/verb.h"

static const char help[] =
    "usage: faultline serve [OPTION...]\n"
    "\n"
    "Serves the page faults of VMs that are restored from the images of a store: the VMM connects "
    "to the\n"
    "socket that bears the image's name. Logs one line an event on stderr. SIGTERM ends it: VMs "
    "that still\n"
    "run are given all their memory first; a second SIGTERM kills them.\n"
    "\n"
    "  --store DIR             default $FAULTLINE_STORE, then " DEFAULT_STORE "\n"
    "  --sockets DIR           where to make IMAGE.sock for every image (default " DEFAULT_SOCKETS
    ")\n"
    "  --control PATH          the control API's socket (default $FAULTLINE_CONTROL, then\n"
    "                          " DEFAULT_CONTROL ")\n" SERVE_OPTIONS_HELP "  -h, --help\n";

// Only the last part of a path is made, with all parents for the defaults below /run.
static int make_directory(const char *path)
{
    if (strncmp(path, DEFAULT_RUN "/", sizeof(DEFAULT_RUN)) == 0 && mkdir(DEFAULT_RUN, 0755) != 0 &&
        errno != EEXIST)
        return -errno;
    return mkdir(path, 0755) == 0 || errno == EEXIST ? 0 : -errno;
}

static int run(const struct fl_server_options *server)
{
    char reason[512];
    int error = make_directory(server->sockets);
    if (error)
        return cli_fail_errno("serve", error, "the directory %s cannot be made", server->sockets);
    if (fl_server_run(server, reason, sizeof(reason)) != 0)
        return cli_fail("serve", "%s", reason);
    return EXIT_DONE;
}

int cmd_serve(int argc, char **argv)
{
    enum { STORE = SERVE_OPTION_END, SOCKETS, CONTROL };
    static const struct option options[] = {{"store", required_argument, NULL, STORE},
                                            {"sockets", required_argument, NULL, SOCKETS},
                                            {"control", required_argument, NULL, CONTROL},
                                            {"help", no_argument, NULL, 'h'},
                                            SERVE_OPTIONS,
                                            {0}};
    struct fl_server_options server;
    int option;
    serve_options_init(&server);
    server.store = default_store();
    server.control = default_control();
    server.sockets = DEFAULT_SOCKETS;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        if (option == STORE)
            server.store = optarg;
        else if (option == SOCKETS)
            server.sockets = optarg;
        else if (option == CONTROL)
            server.control = optarg;
        else if (serve_option(&server, "serve", option) != EXIT_DONE)
            return EXIT_USAGE;
    }
    if (optind != argc)
        return cli_usage("serve", "it takes no argument '%s'", argv[optind]);
    return run(&server);
}
