// SPDX-License-Identifier: Apache-2.0
//
// The options that all verbs share which run an engine.
#ifndef FAULTLINE_TOOLS_SERVE_OPTIONS_H
#define FAULTLINE_TOOLS_SERVE_OPTIONS_H

#include <getopt.h>

struct fl_server_options;

enum {
    SERVE_WORKERS = 1000,
    SERVE_READERS,
    SERVE_CACHE,
    SERVE_SPIN,
    SERVE_NICE,
    SERVE_ON_ERROR,
    SERVE_RETRIES,
    SERVE_READ_TIMEOUT,
    SERVE_HANDSHAKE_TIMEOUT,
    SERVE_STOP_TIMEOUT,
    SERVE_OWNER,
    SERVE_MODE,
    SERVE_OPTION_END,
};

#define SERVE_OPTIONS                                                                              \
    {"workers", required_argument, NULL, SERVE_WORKERS},                                           \
        {"readers", required_argument, NULL, SERVE_READERS},                                       \
        {"cache", required_argument, NULL, SERVE_CACHE},                                           \
        {"spin", required_argument, NULL, SERVE_SPIN},                                             \
        {"nice", required_argument, NULL, SERVE_NICE},                                             \
        {"on-error", required_argument, NULL, SERVE_ON_ERROR},                                     \
        {"retries", required_argument, NULL, SERVE_RETRIES},                                       \
        {"read-timeout", required_argument, NULL, SERVE_READ_TIMEOUT},                             \
        {"handshake-timeout", required_argument, NULL, SERVE_HANDSHAKE_TIMEOUT},                   \
        {"stop-timeout", required_argument, NULL, SERVE_STOP_TIMEOUT},                             \
        {"owner", required_argument, NULL, SERVE_OWNER},                                           \
    {                                                                                              \
        "mode", required_argument, NULL, SERVE_MODE                                                \
    }

#define SERVE_OPTIONS_HELP                                                                         \
    "  --workers N             threads that serve faults (default: one a core)\n"                  \
    "  --readers N             threads that read and decompress (default: one a core, at least "   \
    "4)\n"                                                                                         \
    "  --cache SIZE            bound on decompressed frames in memory (default 1G)\n"              \
    "  --spin US               look this long for the next fault before blocking (default 50)\n"   \
    "  --nice N                priority of those threads, -20 to 19, where we may (default -10)\n" \
    "  --on-error poison|kill  for a page that cannot be read: SIGBUS to its toucher (default), "  \
    "or SIGKILL\n"                                                                                 \
    "                          to the VM\n"                                                        \
    "  --retries N             attempts after a read that failed (default 4)\n"                    \
    "  --read-timeout MS       give up a page that is still being read (default 30000)\n"          \
    "  --handshake-timeout MS  for a peer to say what it wants (default 5000)\n"                   \
    "  --stop-timeout MS       for filling VMs at the end before they are killed (default "        \
    "60000)\n"                                                                                     \
    "  --owner UID:GID         owner of the images' sockets\n"                                     \
    "  --mode OCTAL            their mode (default 660)\n"

void serve_options_init(struct fl_server_options *options);
// Takes one option with its argument from getopt's optarg. EXIT_DONE, or EXIT_USAGE after a
// message.
int serve_option(struct fl_server_options *options, const char *verb, int option);

// "UID:GID" in numbers. 0, or -EINVAL.
int parse_owner(const char *text, unsigned *ret_uid, unsigned *ret_gid);

#endif
