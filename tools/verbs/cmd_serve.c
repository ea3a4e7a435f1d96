// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "engine/keeper/keeper.h"
#include "engine/link/channel.h"
#include "engine/server/server.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/verbs/serve_options.h"
#include "tools/verbs/verbs.h"

struct serve {
    struct fl_server_options server;
    struct fl_keeper_options keeper;
};

static const struct cli_option options[] = {
    CLI_STORE(struct serve, server.store),
    CLI_TEXT(struct serve, server.sockets, .name = "sockets", .value = "DIR", .hint = CLI_DIRECTORY,
             .help = "where to make IMAGE.sock for each image", .preset = DEFAULT_SOCKETS),
    CLI_TEXT(struct serve, server.control, .name = "control", .value = "PATH", .hint = CLI_FILE,
             .help = "the socket of the control API", .preset = DEFAULT_CONTROL,
             .environment = "FAULTLINE_CONTROL"),
    CLI_NUMBER(struct serve, keeper.hang_timeout_ms, .name = "hang-timeout", .value = "MS",
               .low = 1, .high = HOUR_MS, .preset = "10000",
               .help = "kill an engine that is silent so long"),
    CLI_NUMBER(struct serve, keeper.trial_ms, .name = "upgrade-trial", .value = "MS", .low = 1,
               .high = HOUR_MS, .preset = "10000",
               .help = "how long an upgraded engine must live; if it dies earlier, the old version "
                       "comes back"),
    CLI_FLAG(struct serve, keeper.replace, .name = "replace",
             .help = "if a server runs at --control, take everything over from it; it then waits "
                     "for SIGTERM"),
    CLI_TEXT(struct serve, keeper.ready_file, .name = "ready-file", .value = "PATH",
             .hint = CLI_FILE, .help = "a file that is there while this very process serves"),
    CLI_SIZE(struct serve, server.engine.prealloc_bytes, .name = "cache-prealloc", .value = "SIZE",
             .preset = "0",
             .help = "take this much of the cache's memory at the start, so that restores need not "
                     "wait for it"),
    CLI_COUNT(struct serve, server.engine.history, .name = "history", .value = "N",
              .high = FL_HISTORIES_MOST, .preset = "0",
              .help = "keep the histories of the last N VMs, for 'faultline report'"),
    CLI_GROUP(struct serve, server, engine_options),
    CLI_END,
};

// Returns an exit status, or CLI_HELPED. *ret_run is true if the verb is to go on.
static int parse_serve(int argc, char **argv, struct serve *serve, bool *ret_run)
{
    *serve = (struct serve){.server = {.channel = -1}};
    serve_options_init(&serve->server);
    int status = cli_parse(&verb_serve, serve, argc, argv);
    *ret_run = status == EXIT_DONE && optind == argc;
    if (status != EXIT_DONE)
        return status;
    if (!*ret_run)
        return cli_usage("serve", "it takes no argument '%s'", argv[optind]);
    *ret_run = serve->server.engine.prealloc_bytes <= serve->server.engine.cache_bytes;
    return *ret_run ? EXIT_DONE : cli_usage("serve", "--cache-prealloc is more than --cache");
}

// --- where sockets go ---

// Makes the directory unless it is there. Returns 0 or -errno; -ENOENT if its parent is missing.
static int make_directory(const char *path)
{
    struct stat status;
    if (mkdir(path, 0755) == 0)
        return 0;
    if (errno != EEXIST)
        return -errno;
    if (stat(path, &status) != 0)
        return -errno;
    return S_ISDIR(status.st_mode) ? 0 : -ENOTDIR;
}

// Makes the parent of a default path, because /run is empty after every boot.
static int make_default(const char *path)
{
    bool below = strncmp(path, DEFAULT_RUN "/", sizeof(DEFAULT_RUN)) == 0;
    int error = below ? make_directory(DEFAULT_RUN) : 0;
    return error ? cli_fail_errno("serve", error, "cannot make the directory " DEFAULT_RUN)
                 : EXIT_DONE;
}

static int prepare_sockets(const char *path)
{
    int status = make_default(path);
    int error = status == EXIT_DONE ? make_directory(path) : 0;
    if (error == -ENOENT)
        return cli_fail("serve", "--sockets: the parent directory of %s does not exist", path);
    if (error == -ENOTDIR)
        return cli_fail("serve", "--sockets: %s is not a directory", path);
    if (error)
        return cli_fail_errno("serve", error, "--sockets: cannot make the directory %s", path);
    return status;
}

static int prepare_control(const char *path)
{
    char copy[PATH_MAX];
    struct stat status;
    if (snprintf(copy, sizeof(copy), "%s", path) >= (int)sizeof(copy))
        return cli_fail("serve", "--control: the path %s is too long", path);
    const char *parent = dirname(copy);
    if (make_default(path) != EXIT_DONE)
        return EXIT_FAILED;
    if (stat(parent, &status) != 0)
        return cli_fail_errno("serve", -errno, "--control: cannot use the directory of %s", path);
    return S_ISDIR(status.st_mode) ? EXIT_DONE
                                   : cli_fail("serve", "--control: %s is not in a directory", path);
}

static int cmd_serve(int argc, char **argv)
{
    struct serve serve;
    bool run = false;
    int result = parse_serve(argc, argv, &serve, &run);
    if (!run)
        return result;
    if (cli_check_page_size("serve") != EXIT_DONE)
        return EXIT_FAILED;
    bool ready = prepare_control(serve.server.control) == EXIT_DONE &&
                 prepare_sockets(serve.server.sockets) == EXIT_DONE;
    if (!ready && !fl_keeper_is_successor()) // a successor holds VMs, and serves them all the same
        return EXIT_FAILED;
    serve.keeper.argv = argv;
    serve.keeper.control = serve.server.control;
    serve.keeper.filter = serve.server.filter;
    serve.keeper.sockets = serve.server.sockets;
    serve.keeper.stop_timeout_ms = serve.server.engine.stop_timeout_ms;
    return fl_keeper_run(&serve.keeper);
}

static bool has_channel(void)
{
    int type = 0;
    socklen_t size = sizeof(type);
    return getsockopt(FL_ENGINE_CHANNEL, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
           type == SOCK_SEQPACKET;
}

// The engine. `serve` starts it with its own options and a channel to the keeper.
static int cmd_engine(int argc, char **argv)
{
    struct serve serve;
    struct fl_error reason;
    bool run = false;
    if (!has_channel())
        return cli_fail("engine", "only 'faultline serve' starts an engine");
    int result = parse_serve(argc, argv, &serve, &run);
    if (!run)
        return result;
    serve.server.channel = FL_ENGINE_CHANNEL;
    result = fl_server_run(&serve.server, &reason);
    if (result != 0)
        cli_fail("serve", "%s", reason.text);
    return result == 0 ? EXIT_DONE : result < 0 ? EXIT_FAILED : EXIT_INCOMPLETE;
}

const struct verb verb_serve = {
    .name = "serve",
    .run = cmd_serve,
    .summary = "serve page faults of VMs restored from the images of a store",
    .synopsis = {"[OPTION...]"},
    .about = "Serves the page faults of VMs that are restored from the images of a "
             "store. Each image has a socket, to which the VMM connects. The log "
             "goes to stderr.\n\n"
             "This process is the keeper, which holds what must not be lost. It "
             "starts an engine, which serves; when that dies, another one replaces "
             "it in milliseconds.\n\n"
             "SIGTERM ends both, and gives running VMs all their memory first; a "
             "second SIGTERM kills these VMs. SIGUSR1 ends the keeper at once and "
             "leaves the VMs to the next 'faultline serve' (docs/operations.md).",
    .status = "0 after such a signal; 1 if the server could not start or go on; 3 if "
              "VMs were killed, or let go with poisoned pages.",
    .options = options,
};

// Its own help is that of `serve`, and users do not call it.
const struct verb verb_engine = {.name = "engine", .run = cmd_engine, .options = options};
