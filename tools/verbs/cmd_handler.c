// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "engine/server/server.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/verbs/serve_options.h"
#include "tools/verbs/verbs.h"

static const struct verb_argument arguments[] = {
    {.name = "SOCKET", .hint = CLI_FILE},
    {.name = "MEMFILE", .hint = CLI_FILE},
    {.name = NULL},
};
static const struct cli_option options[] = {
    CLI_FLAG(struct fl_server_options, engine.populate, .name = "populate",
             .help = "copy all memory on the first fault, then print 'Finished Faulting All: "
                     "NNNus' to stdout (the log is on stderr)"),
    {.group = engine_options},
    CLI_END,
};

// Prints the line that Firecracker's own tests look for at the beginning of the output.
static void print_filled(uint64_t vm_id, uint64_t ns)
{
    (void)vm_id;
    printf("Finished Faulting All: %" PRIu64 "us\n", ns / 1000);
    fflush(stdout);
}

static int cmd_handler(int argc, char **argv)
{
    struct fl_server_options server;
    struct fl_error reason;
    serve_options_init(&server);
    int status = cli_parse(&verb_handler, &server, argc, argv);
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

const struct verb verb_handler = {
    .name = "handler",
    .run = cmd_handler,
    .summary = "serve page faults from one raw memory file, in the foreground",
    .synopsis = {"[OPTION...] SOCKET MEMFILE"},
    .about = "Serves page faults from one raw guest memory file, without a store, in "
             "the foreground. It takes the arguments of Firecracker's example "
             "handlers. SIGTERM ends it: VMs that still run are given all their "
             "memory first.",
    .status = "0 after SIGTERM; 1 if it could not start; 3 if VMs were killed, or let "
              "go with poisoned pages.",
    .arguments = arguments,
    .options = options,
};
