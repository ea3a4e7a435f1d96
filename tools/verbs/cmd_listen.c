// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/verbs/serve_options.h"
#include "tools/verbs/verbs.h"

#define UNSET ((mode_t)-1)
static const char listeners[] = "/v1/listeners";

struct order {
    const char *control;
    const char *image;
    const char *socket;
    const char *on_error;
    const char *huge;
    struct fl_socket_access access;
    bool remove;
    bool list;
    bool json;
};

static const struct cli_option options[] = {
    CLI_TEXT(struct order, image, .name = "image", .value = "NAME", .hint = CLI_IMAGE,
             .help = "an image of the server's store"),
    CLI_TEXT(struct order, socket, .name = "socket", .value = "PATH", .hint = CLI_FILE,
             .help = "where to listen; the directory must exist"),
    CLI_OTHER(struct order, access, take_owner, .name = "owner", .value = "USER:GROUP",
              .help = "owner of the socket, as names or numbers, e.g. the jail's"),
    CLI_OTHER(struct order, access, take_mode, .name = "mode", .value = "OCTAL",
              .help = "mode of the socket", .otherwise = "that of the images' sockets"),
    CLI_TEXT(struct order, on_error, .name = "on-error", .choices = "auto|poison|kill",
             .help = "what to do if a page of a VM that connects here cannot be had",
             .otherwise = "the server's"),
    CLI_TEXT(struct order, huge, .name = "huge", .choices = "off|after-replay",
             .help = "whether working sets of VMs that connect here become pages of 2 MiB",
             .otherwise = "as serve --huge says"),
    CLI_FLAG(struct order, remove, .name = "remove", .help = "stop listening at the path"),
    CLI_FLAG(struct order, list, .name = "list", .help = "list where the server listens"),
    CLI_FLAG(struct order, json, .name = "json",
             .help = "print the server's answer as JSON (docs/control-api.md)"),
    CLI_CONTROL(struct order, control),
    CLI_END,
};

// Makes a path absolute, because the server has another current directory.
static int make_absolute(const char *path, char absolute[PATH_MAX])
{
    char here[PATH_MAX];
    if (path[0] != '/' && !getcwd(here, sizeof(here)))
        return cli_fail("listen", "the current directory has no name");
    int length = path[0] == '/' ? snprintf(absolute, PATH_MAX, "%s", path)
                                : snprintf(absolute, PATH_MAX, "%s/%s", here, path);
    return length < PATH_MAX ? EXIT_DONE : cli_fail("listen", "the path %s is too long", path);
}

static json_t *make_body(const struct order *order, const char *socket)
{
    const struct fl_socket_access *access = &order->access;
    json_t *body = json_pack("{s:s}", "socket", socket);
    if (order->remove)
        return body;
    json_object_set_new(body, "image", json_string(order->image));
    if (access->uid != (uid_t)-1) {
        json_object_set_new(body, "uid", json_integer(access->uid));
        json_object_set_new(body, "gid", json_integer(access->gid));
    }
    if (access->mode != UNSET)
        json_object_set_new(body, "mode", json_integer(access->mode));
    if (order->on_error)
        json_object_set_new(body, "on_error", json_string(order->on_error));
    if (order->huge)
        json_object_set_new(body, "huge", json_string(order->huge));
    return body;
}

static int change_listener(const struct order *order)
{
    char socket[PATH_MAX];
    json_t *answer = NULL;
    int result = make_absolute(order->socket, socket);
    if (result != EXIT_DONE)
        return result;
    json_t *body = make_body(order, socket);
    if (!body)
        return cli_fail("listen", "the path %s is not UTF-8, which the control API needs", socket);
    result = control_ask_by("listen", order->control, order->remove ? "DELETE" : "POST", listeners,
                            body, &answer);
    json_decref(body);
    if (result == EXIT_DONE && order->json) {
        json_dumpf(answer, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(answer);
    return result;
}

static void print_listeners(json_t *list)
{
    size_t i;
    control_plain(list);
    const json_t *listener;
    printf("%-24s %-9s %s\n", "IMAGE", "MADE", "SOCKET");
    json_array_foreach(list, i, listener)
    {
        bool automatic = json_is_true(json_object_get(listener, "automatic"));
        printf("%-24s %-9s %s%s\n", json_string_value(json_object_get(listener, "image")),
               automatic ? "automatic" : "asked for",
               json_string_value(json_object_get(listener, "socket")),
               json_is_false(json_object_get(listener, "reachable")) ? " (gone: not reachable)"
                                                                     : "");
    }
}

static int list_listeners(const struct order *order)
{
    json_t *answer = NULL;
    int result = control_ask("listen", order->control, listeners, NULL, &answer);
    if (result != EXIT_DONE)
        return result;
    if (order->json) {
        json_dumpf(answer, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        print_listeners(json_object_get(answer, "listeners"));
    }
    json_decref(answer);
    return EXIT_DONE;
}

static int check_order(const struct order *order, int argc, char **argv)
{
    if (optind != argc)
        return cli_usage("listen", "it takes no argument '%s'", argv[optind]);
    if (order->list && (order->remove || order->image || order->socket))
        return cli_usage("listen", "--list cannot be used with --image, --socket or --remove");
    if (order->remove && (!order->socket || order->image))
        return cli_usage("listen", "--remove needs --socket and takes no --image");
    if (!order->list && !order->remove && (!order->image || !order->socket))
        return cli_usage("listen", "it needs --image and --socket");
    return EXIT_DONE;
}

static int cmd_listen(int argc, char **argv)
{
    struct order order = {.access = {.mode = UNSET, .uid = (uid_t)-1, .gid = (gid_t)-1}};
    int status = cli_parse(&verb_listen, &order, argc, argv);
    if (status == EXIT_DONE)
        status = check_order(&order, argc, argv);
    if (status != EXIT_DONE)
        return status;
    return order.list ? list_listeners(&order) : change_listener(&order);
}

const struct verb verb_listen = {
    .name = "listen",
    .run = cmd_listen,
    .summary = "have a running server listen for an image at another path",
    .synopsis = {"--image NAME --socket PATH [OPTION...]", "--remove --socket PATH [OPTION...]",
                 "--list [--json] [OPTION...]"},
    .about = "Has a running server listen for an image at another path as well, for "
             "example inside the chroot of a jailed Firecracker. The server removes "
             "the socket with the image, at its own end, and on --remove.",
    .options = options,
};
