// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/server.h"
#include "tools/cli.h"
#include "tools/serve_options.h"
#include "tools/verb.h"

static const char help[] =
    "usage: faultline handler [OPTION...] SOCKET MEMFILE\n"
    "\n"
    "Serves page faults from one raw guest memory file, without a store, in the foreground. It "
    "takes the\n"
    "arguments of Firecracker's example handlers. SIGTERM ends it: VMs that still run are given "
    "all their\n"
    "memory first.\n"
    "\n"
    "  --populate              copy all memory on the first fault, then print\n"
    "                          'Finished Faulting All: N us'\n" SERVE_OPTIONS_HELP "  -h, --help\n";

// The line that Firecracker's own tests look for.
static void filled(uint64_t vm_id, uint64_t ns)
{
    (void)vm_id;
    printf("Finished Faulting All: %" PRIu64 " us\n", ns / 1000);
    fflush(stdout);
}

int cmd_handler(int argc, char **argv)
{
    enum { POPULATE = SERVE_OPTION_END };
    static const struct option options[] = {{"populate", no_argument, NULL, POPULATE},
                                            {"help", no_argument, NULL, 'h'},
                                            SERVE_OPTIONS,
                                            {0}};
    struct fl_server_options server;
    char reason[512];
    int option;
    serve_options_init(&server);
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        if (option == POPULATE) {
            server.engine.populate = true;
            server.engine.filled = filled;
        } else if (serve_option(&server, "handler", option) != EXIT_DONE) {
            return EXIT_USAGE;
        }
    }
    if (argc - optind != 2)
        return cli_usage("handler", "it takes a socket and a memory file");
    server.raw_socket = argv[optind];
    server.raw_file = argv[optind + 1];
    if (fl_server_run(&server, reason, sizeof(reason)) != 0)
        return cli_fail("handler", "%s", reason);
    return EXIT_DONE;
}
