// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <stdio.h>

#include "snapshot/read.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/verbs/remote_options.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *store;
    bool json, replace, trust_store;
    struct remote_options remote;
};

static const struct verb_argument arguments[] = {
    {.name = "IMAGE", .hint = CLI_IMAGE, .many = true},
    {.name = NULL},
};
static const struct cli_option push_options[] = {
    CLI_STORE(struct arguments, store),
    CLI_TEXT(struct arguments, remote.url, .name = "to", .value = "URL",
             .help = "the remote store: s3://BUCKET/PREFIX"),
    CLI_FLAG(struct arguments, replace, .name = "replace",
             .help = "replace an image of this name that is another (otherwise that is an error)"),
    CLI_FLAG(struct arguments, trust_store, .name = "trust-store",
             .help = "send packs without looking first whether they are damaged"),
    CLI_GROUP(struct arguments, remote, remote_server_options),
    CLI_JSON(struct arguments, json),
    CLI_END,
};
static const struct cli_option pull_options[] = {
    CLI_STORE(struct arguments, store),
    CLI_TEXT(struct arguments, remote.url, .name = "from", .value = "URL",
             .help = "the remote store: s3://BUCKET/PREFIX"),
    CLI_FLAG(struct arguments, replace, .name = "replace",
             .help = "replace an image of this name that is another (otherwise that is an error)"),
    CLI_GROUP(struct arguments, remote, remote_server_options),
    CLI_JSON(struct arguments, json),
    CLI_END,
};

static int run(const struct verb *verb, const char *place, int argc, char **argv)
{
    struct arguments args = {.store = NULL};
    char store[4200];
    int status = cli_parse(verb, &args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (!args.remote.url)
        return cli_usage(verb->name, "%s is missing", place);
    if (optind == argc)
        return cli_usage(verb->name, "an image is needed");
    for (int i = optind; i < argc; i++) {
        if (!fl_name_valid(argv[i]))
            return cli_usage(verb->name, "'%s' cannot name an image", argv[i]);
    }
    if (snprintf(store, sizeof(store), "store=%s", args.store) >= (int)sizeof(store))
        return cli_usage(verb->name, "--store: the path is too long");
    const char *const extra[] = {
        store,
        args.replace ? "replace=1" : NULL,
        args.trust_store ? "trust-store=1" : NULL,
        args.json ? "json=1" : NULL,
    };
    return remote_run(verb->name, &args.remote, extra, sizeof(extra) / sizeof(extra[0]),
                      &argv[optind], argc - optind);
}

static int cmd_push(int argc, char **argv)
{
    return run(&verb_push, "--to", argc, argv);
}

static int cmd_pull(int argc, char **argv)
{
    return run(&verb_pull, "--from", argc, argv);
}

const struct verb verb_push = {
    .name = "push",
    .run = cmd_push,
    .summary = "copy images from a store to a bucket",
    .synopsis = {"[--store DIR] --to URL [OPTION...] IMAGE..."},
    .about =
        "Copies images, with their companions, labels and traces, to a remote store: a prefix of a "
        "bucket of S3 or of a server that is like it. Only packs that are not there are sent, and "
        "an image appears there whole or not at all, whatever happens meanwhile. What was sent "
        "before an interruption is used by the next push.\n"
        "\n"
        "Keys come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
        "AWS_SESSION_TOKEN), a file, or the metadata of the container or the instance; never from "
        "the command line. docs/remote.md says what is in the bucket, and which servers will do.",
    .arguments = arguments,
    .options = push_options,
};

const struct verb verb_pull = {
    .name = "pull",
    .run = cmd_pull,
    .summary = "copy images from a bucket to a store",
    .synopsis = {"[--store DIR] --from URL [OPTION...] IMAGE..."},
    .about =
        "Copies images from a remote store (see push --help) to the store, which is made if "
        "there is none. Only packs that the store does not have are fetched. Every byte is "
        "verified before an image appears. An interrupted pull goes on where it was when it is "
        "run again, unless gc ran.",
    .arguments = arguments,
    .options = pull_options,
};
