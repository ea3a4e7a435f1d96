// SPDX-License-Identifier: Apache-2.0
//
// push and pull.
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/progress.h"
#include "tools/cli/store_cli.h"
#include "tools/remote/remote.h"

static int push_one(struct fl_remote *remote, struct fl_store *store,
                    const struct remote_arguments *args, const char *name, json_t *images)
{
    struct progress progress;
    struct fl_push_result result;
    struct fl_error error;
    struct fl_push_options options = {
        .name = name,
        .replace = args->replace,
        .trust_store = args->trust_store,
        .progress = progress_begin(&progress, "pushing", true),
    };
    int r = fl_remote_push(remote, store, &options, &result, &error);
    progress_end(&progress);
    if (r < 0)
        return cli_fail("push", "%s", error.text);
    if (images)
        json_array_append_new(images,
                              json_pack("{s:s,s:b,s:I,s:I,s:I,s:I}", "name", name, "already",
                                        result.already, "files_sent", (json_int_t)result.files_sent,
                                        "bytes_sent", (json_int_t)result.bytes_sent, "files_shared",
                                        (json_int_t)result.files_shared, "bytes_shared",
                                        (json_int_t)result.bytes_shared));
    char sent[32];
    char shared[32];
    if (!images && result.already)
        printf("%s: is there already\n", name);
    else if (!images)
        printf("%s: sent %s in %" PRIu64 " file%s; %s in %" PRIu64 " file%s were there\n", name,
               cli_format_bytes(result.bytes_sent, sent, sizeof(sent)), result.files_sent,
               cli_s(result.files_sent),
               cli_format_bytes(result.bytes_shared, shared, sizeof(shared)), result.files_shared,
               cli_s(result.files_shared));
    return EXIT_DONE;
}

static int pull_one(struct fl_remote *remote, struct fl_store *store,
                    const struct remote_arguments *args, const char *name, json_t *images)
{
    struct progress progress;
    struct fl_pull_result result;
    struct fl_error error;
    struct fl_pull_options options = {
        .name = name,
        .replace = args->replace,
        .progress = progress_begin(&progress, "pulling", true),
    };
    int r = fl_remote_pull(remote, store, &options, &result, &error);
    progress_end(&progress);
    if (r < 0)
        return cli_fail("pull", "%s", error.text);
    if (images)
        json_array_append_new(images, json_pack("{s:s,s:b,s:I,s:I,s:I,s:I,s:I,s:b}", "name", name,
                                                "already", result.already, "packs_fetched",
                                                (json_int_t)result.packs_fetched, "bytes_fetched",
                                                (json_int_t)result.bytes_fetched, "bytes_resumed",
                                                (json_int_t)result.bytes_resumed, "packs_shared",
                                                (json_int_t)result.packs_shared, "bytes_shared",
                                                (json_int_t)result.bytes_shared,
                                                "index_not_updated", result.index_error < 0));
    char fetched[32];
    char shared[32];
    if (!images && result.already)
        printf("%s: is there already\n", name);
    else if (!images)
        printf("%s: fetched %s, %" PRIu64 " pack%s; %s in %" PRIu64 " pack%s were there\n", name,
               cli_format_bytes(result.bytes_fetched, fetched, sizeof(fetched)),
               result.packs_fetched, cli_s(result.packs_fetched),
               cli_format_bytes(result.bytes_shared, shared, sizeof(shared)), result.packs_shared,
               cli_s(result.packs_shared));
    store_say_index("pull", args->store, "the image is in the store", result.index_rebuilt, false,
                    result.index_error);
    return EXIT_DONE;
}

// The images that can be copied are, although others cannot.
static int each(struct fl_remote *remote, const struct remote_arguments *args, bool create,
                int (*one)(struct fl_remote *, struct fl_store *, const struct remote_arguments *,
                           const char *, json_t *))
{
    int status = EXIT_DONE;
    struct fl_store *store = store_open_or_say(args->verb, args->store, create);
    if (!store)
        return EXIT_FAILED;
    json_t *images = args->json ? json_array() : NULL;
    int i = 0;
    for (; i < args->images_count && !progress_interrupted(); i++) {
        if (one(remote, store, args, args->images[i], images) != EXIT_DONE)
            status = EXIT_FAILED;
    }
    if (i < args->images_count)
        status = cli_fail(args->verb, "interrupted before the image '%s'", args->images[i]);
    fl_store_close(store);
    if (!args->json)
        return status;
    int printed = store_print_json(args->verb, json_pack("{s:o}", "images", images));
    return status == EXIT_DONE ? printed : status;
}

int remote_push(struct fl_remote *remote, const struct remote_arguments *args)
{
    return each(remote, args, false, push_one);
}

int remote_pull(struct fl_remote *remote, const struct remote_arguments *args)
{
    return each(remote, args, true, pull_one);
}
