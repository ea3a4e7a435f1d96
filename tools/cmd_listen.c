// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/cli.h"
#include "tools/control_client.h"
#include "tools/paths.h"
#include "tools/serve_options.h"
#include "tools/verb.h"

static const char help[] =
    "usage: faultline listen --image NAME --socket PATH [OPTION...]\n"
    "\n"
    "Has a running server listen for an image at another path as well, for instance inside the "
    "chroot of a\n"
    "jailed Firecracker.\n"
    "\n"
    "  --image NAME       an image of the server's store\n"
    "  --socket PATH      where to listen; its directory must exist\n"
    "  --owner UID:GID    owner of the socket, e.g. the jail's\n"
    "  --control PATH     the server's control socket (default $FAULTLINE_CONTROL, then\n"
    "                     " DEFAULT_CONTROL ")\n"
    "  -h, --help\n";

struct order {
    const char *control;
    const char *image;
    const char *socket;
    const char *owner;
};

static int order(const struct order *order)
{
    char absolute[PATH_MAX];
    char here[PATH_MAX];
    unsigned uid = 0;
    unsigned gid = 0;
    json_t *answer = NULL;
    if (order->socket[0] != '/' && !getcwd(here, sizeof(here)))
        return cli_fail("listen", "the current directory has no name");
    int length = order->socket[0] == '/'
                     ? snprintf(absolute, sizeof(absolute), "%s", order->socket)
                     : snprintf(absolute, sizeof(absolute), "%s/%s", here, order->socket);
    if (length >= (int)sizeof(absolute))
        return cli_fail("listen", "the path %s is too long", order->socket);
    json_t *body = json_pack("{s:s, s:s}", "image", order->image, "socket", absolute);
    if (order->owner) {
        if (parse_owner(order->owner, &uid, &gid) != 0) {
            json_decref(body);
            return cli_usage("listen", "'%s' is not UID:GID", order->owner);
        }
        json_object_set_new(body, "uid", json_integer(uid));
        json_object_set_new(body, "gid", json_integer(gid));
    }
    int result = control_ask("listen", order->control, "/v1/listeners", body, &answer);
    json_decref(body);
    json_decref(answer);
    return result;
}

int cmd_listen(int argc, char **argv)
{
    static const struct option options[] = {
        {"image", required_argument, NULL, 'i'}, {"socket", required_argument, NULL, 's'},
        {"owner", required_argument, NULL, 'o'}, {"control", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},        {0}};
    struct order wanted = {.control = default_control()};
    int option;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (option) {
        case 'i':
            wanted.image = optarg;
            break;
        case 's':
            wanted.socket = optarg;
            break;
        case 'o':
            wanted.owner = optarg;
            break;
        case 'c':
            wanted.control = optarg;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_DONE;
        default:
            return EXIT_USAGE;
        }
    }
    if (optind != argc || !wanted.image || !wanted.socket)
        return cli_usage("listen", "it takes --image and --socket, and no argument");
    return order(&wanted);
}
