// SPDX-License-Identifier: Apache-2.0
#include "tools/serve_options.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "engine/server.h"
#include "tools/cli.h"
#include "tools/verb.h"

enum { DEFAULT_MODE = 0660, THREADS_MAX = 1024, HOUR_MS = 3600 * 1000 };

void serve_options_init(struct fl_server_options *options)
{
    *options = (struct fl_server_options){
        .engine = fl_engine_defaults,
        .channel = -1,
        .access = {.mode = DEFAULT_MODE, .uid = (uid_t)-1, .gid = (gid_t)-1},
    };
}

int parse_owner(const char *text, unsigned *ret_uid, unsigned *ret_gid)
{
    uint64_t uid = 0;
    uint64_t gid = 0;
    char copy[32];
    const char *colon = strchr(text, ':');
    if (!colon || strlen(text) >= sizeof(copy))
        return -EINVAL;
    memcpy(copy, text, (size_t)(colon - text));
    copy[colon - text] = '\0';
    if (cli_parse_number(copy, 0, UINT32_MAX - 1, &uid) ||
        cli_parse_number(colon + 1, 0, UINT32_MAX - 1, &gid))
        return -EINVAL;
    *ret_uid = (unsigned)uid;
    *ret_gid = (unsigned)gid;
    return 0;
}

static int parse_mode(const char *text, mode_t *ret_mode)
{
    char *end = NULL;
    unsigned long mode = strtoul(text, &end, 8);
    if (*text == '\0' || *end != '\0' || mode > 0777)
        return -EINVAL;
    *ret_mode = (mode_t)mode;
    return 0;
}

static int take_nice(int *ret_nice)
{
    uint64_t number = 0;
    bool negative = optarg[0] == '-';
    int error = cli_parse_number(optarg + negative, 0, negative ? 20 : 19, &number);
    if (!error)
        *ret_nice = negative ? -(int)number : (int)number;
    return error;
}

static int take_number(unsigned *ret_number, unsigned low, unsigned high)
{
    uint64_t number = 0;
    int error = cli_parse_number(optarg, low, high, &number);
    if (!error)
        *ret_number = (unsigned)number;
    return error;
}

static int take(struct fl_server_options *options, int option)
{
    struct fl_engine_options *engine = &options->engine;
    switch (option) {
    case SERVE_WORKERS:
        return take_number(&engine->workers, 1, THREADS_MAX);
    case SERVE_READERS:
        return take_number(&engine->readers, 1, THREADS_MAX);
    case SERVE_CACHE:
        return cli_parse_size(optarg, &engine->cache_bytes);
    case SERVE_SPIN:
        return take_number(&engine->spin_us, 0, 1000000);
    case SERVE_NICE:
        return take_nice(&engine->nice);
    case SERVE_RETRIES:
        return take_number(&engine->read_retries, 0, 8);
    case SERVE_READ_TIMEOUT:
        return cli_parse_number(optarg, 1, HOUR_MS, &engine->read_timeout_ms);
    case SERVE_HANDSHAKE_TIMEOUT:
        return cli_parse_number(optarg, 1, HOUR_MS, &engine->handshake_timeout_ms);
    case SERVE_STOP_TIMEOUT:
        return cli_parse_number(optarg, 0, HOUR_MS, &engine->stop_timeout_ms);
    case SERVE_ON_ERROR:
        engine->kill_on_error = strcmp(optarg, "kill") == 0;
        return engine->kill_on_error || strcmp(optarg, "poison") == 0 ? 0 : -EINVAL;
    case SERVE_OWNER:
        return parse_owner(optarg, &options->access.uid, &options->access.gid);
    case SERVE_MODE:
        return parse_mode(optarg, &options->access.mode);
    default:
        return -ENOENT;
    }
}

int serve_option(struct fl_server_options *options, const char *verb, int option)
{
    if (option == '?') // getopt has said what is wrong
        return EXIT_USAGE;
    if (take(options, option) == 0)
        return EXIT_DONE;
    return cli_usage(verb, "'%s' is not a value for this option", optarg);
}
