// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "engine/server/server.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/verbs/serve_options.h"
#include "tools/verbs/verbs.h"

static const char help[] =
    "usage: faultline handler [OPTION...] SOCKET MEMFILE\n"
    "\n"
    "Serves page faults from one raw guest memory file, without a store, in the\n"
    "foreground. It takes the arguments of Firecracker's example handlers. SIGTERM ends\n"
    "it: VMs that still run are given all their memory first.\n"
    "\n"
    "Exit status: 0 after SIGTERM; 1 if it could not start; 3 if VMs were killed, or\n"
    "let go with poisoned pages.\n"
    "\n"
    "  --populate              copy all memory on the first fault, then print\n"
    "                          'Finished Faulting All: NNNus' to stdout (the log is on\n"
    "                          stderr)\n" SERVE_OPTIONS_HELP
    "  -h, --help              print this help\n";

// Prints the line that Firecracker's own tests look for at the beginning of the output.
static void print_filled(uint64_t vm_id, uint64_t ns)
{
    (void)vm_id;
    printf("Finished Faulting All: %" PRIu64 "us\n", ns / 1000);
    fflush(stdout);
}

int cmd_handler(int argc, char **argv)
{
    struct fl_server_options server;
    struct fl_error reason;
    serve_options_init(&server);
    const struct cli_option options[] = {
        CLI_FLAG("populate", &server.engine.populate),
        SERVE_OPTIONS(&server),
        CLI_END,
    };
    int status = cli_parse("handler", help, options, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (server.engine.populate)
        server.engine.filled = print_filled;
    if (argc - optind != 2)
        return cli_usage("handler", "it takes a socket and a memory file");
    if (cli_check_page_size("handler") != EXIT_DONE)
        return EXIT_FAILED;
    server.raw_socket = argv[optind];
    server.raw_file = argv[optind + 1];
    int result = fl_server_run(&server, &reason);
    if (result != 0)
        cli_fail("handler", "%s", reason.text);
    return result == 0 ? EXIT_DONE : result < 0 ? EXIT_FAILED : EXIT_INCOMPLETE;
}
