// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/host/fuse_place.h"
#include "engine/keeper/keeper.h"
#include "engine/link/channel.h"
#include "engine/server/server.h"
#include "tools/cli/cli.h"
#include "tools/cli/defaults.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/verbs/serve_config.h"
#include "tools/verbs/serve_options.h"
#include "tools/verbs/verbs.h"

static const struct cli_option options[] = {
    CLI_TEXT(struct serve, config, .name = "config", .value = "FILE", .hint = CLI_FILE,
             .help = "the configuration file, which need not exist unless this is given; none: use "
                     "no file",
             .preset = DEFAULT_CONFIG, .environment = "FAULTLINE_CONFIG", .only_option = true),
    CLI_TEXT(struct serve, server.store, .name = "store", .value = "DIR", .hint = CLI_DIRECTORY,
             .help = "the store", .preset = DEFAULT_STORE, .environment = "FAULTLINE_STORE",
             .when = CLI_AT_RESTART),
    CLI_TEXT(struct serve, server.sockets, .name = "sockets", .value = "DIR", .hint = CLI_DIRECTORY,
             .help = "where to make IMAGE.sock for each image", .preset = DEFAULT_SOCKETS,
             .when = CLI_AT_RESTART),
    CLI_TEXT(struct serve, server.files, .name = "files", .value = "DIR", .hint = CLI_DIRECTORY,
             .otherwise = "nowhere",
             .help = "where to mount each image as a file, IMAGE.mem, whose pages come as they are "
                     "touched (docs/files.md)",
             .when = CLI_AT_RESTART),
    CLI_TEXT(struct serve, server.control, .name = "control", .value = "PATH", .hint = CLI_FILE,
             .help = "the socket of the control API", .preset = DEFAULT_CONTROL,
             .environment = "FAULTLINE_CONTROL", .when = CLI_AT_RESTART),
    CLI_GROUP(struct serve, server.api, api_options),
    CLI_TIME_MS(struct serve, keeper.hang_timeout_ms, .name = "hang-timeout", .value = "TIME",
                .low = 1, .high = HOUR_MS, .preset = "10s",
                .help = "kill an engine that is silent so long", .when = CLI_AT_RELOAD),
    CLI_TIME_MS(struct serve, keeper.trial_ms, .name = "upgrade-trial", .value = "TIME", .low = 1,
                .high = HOUR_MS, .preset = "10s",
                .help =
                    "how long an upgraded engine must live; if it dies earlier, the old version "
                    "comes back",
                .when = CLI_AT_RELOAD),
    CLI_FLAG(struct serve, keeper.replace, .name = "replace",
             .help = "if a server runs at --control, take everything over from it; it then waits "
                     "for SIGTERM",
             .only_option = true),
    CLI_TEXT(struct serve, keeper.ready_file, .name = "ready-file", .value = "PATH",
             .hint = CLI_FILE, .help = "a file that is there while this very process serves",
             .only_option = true),
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

static bool is_same_file(const char *one, const char *other)
{
    struct stat first;
    struct stat second;
    return stat(one, &first) == 0 && stat(other, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

// A unit's ExecReload= and people find the socket there, whatever path it has. What was there
// before is the unit's own, from when --control was another: a link, or the socket itself.
static void publish_control(const char *control)
{
    char link[PATH_MAX];
    char here[PATH_MAX] = "";
    char path[2 * PATH_MAX];
    struct stat before;
    if (!default_published(link, sizeof(link)) ||
        (control[0] != '/' && !getcwd(here, sizeof(here))))
        return;
    snprintf(path, sizeof(path), "%s%s%s", here, *here ? "/" : "", control);
    bool same = strcmp(link, path) == 0;
    bool there = lstat(link, &before) == 0;
    if (!same && is_same_file(link, path)) // so it is for a keeper that was replaced
        return;
    if (there && (S_ISLNK(before.st_mode) || (S_ISSOCK(before.st_mode) && !same)))
        unlink(link);
    if (!same && symlink(path, link) != 0)
        cli_warn("serve", "cannot publish the control socket as %s: %s", link, strerror(errno));
}

static int cmd_serve(int argc, char **argv)
{
    static struct serve_sources sources;
    struct serve serve;
    int result = serve_read("serve", SERVE_KEEPER, argc, argv, &serve, &sources);
    if (result != EXIT_DONE)
        return result;
    if (cli_check_page_size("serve") != EXIT_DONE)
        return EXIT_FAILED;
    bool ready = prepare_control(serve.server.control) == EXIT_DONE &&
                 prepare_sockets(serve.server.sockets) == EXIT_DONE;
    if (!ready && !fl_keeper_is_successor()) // a successor holds VMs, and serves them all the same
        return EXIT_FAILED;
    publish_control(serve.server.control);
    serve.keeper.argv = argv;
    serve.keeper.control = serve.server.control;
    serve.keeper.filter = serve.server.filter;
    serve.keeper.sockets = serve.server.sockets;
    serve.keeper.files = serve.server.files;
    serve.keeper.filter.mounts = serve.server.files && fl_fuse_may_mount();
    serve.keeper.log_level = serve.server.log_level;
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

// The engine. `serve` starts it with its own options and a channel to the keeper.
static int cmd_engine(int argc, char **argv)
{
    static struct serve_sources sources;
    struct serve serve;
    struct fl_error reason;
    if (!has_channel())
        return cli_fail("engine", "only 'faultline serve' starts an engine");
    int result = serve_read("serve", SERVE_ENGINE, argc, argv, &serve, &sources);
    if (result != EXIT_DONE)
        return result;
    serve.server.channel = FL_ENGINE_CHANNEL;
    serve.server.api.hang_ms = serve.keeper.hang_timeout_ms;
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
             "leaves the VMs to the next 'faultline serve' (docs/operations.md).\n\n"
             "Each option but --config, --replace and --ready-file can also stand in the "
             "configuration file, as a line NAME = VALUE. The command line and the "
             "environment come before the file. A reload takes up what was changed there, "
             "but for a few options that wait for a restart: 'faultline config show' says "
             "which.",
    .status = "0 after such a signal; 1 if the server could not start or go on; 3 if "
              "VMs were killed, or let go with poisoned pages.",
    .options = options,
};

// Its own help is that of `serve`, and users do not call it.
const struct verb verb_engine = {.name = "engine", .run = cmd_engine, .options = options};
