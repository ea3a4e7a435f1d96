// SPDX-License-Identifier: Apache-2.0
//
// What keeps a remote store in order: ls, rm, gc, verify.
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/progress.h"
#include "tools/cli/store_cli.h"
#include "tools/remote/remote.h"

// --- ls ---

struct listing {
    bool names;
    json_t *images; // NULL: text
};

static int list_one(void *arg, const struct fl_remote_image *image)
{
    struct listing *listing = arg;
    char bytes[32];
    char stored[32];
    char pushed[32];
    if (listing->images) {
        json_array_append_new(
            listing->images,
            json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:b}", "name", image->name, "content_id",
                      image->content_id, "bytes", (json_int_t)image->bytes, "stored_bytes",
                      (json_int_t)image->stored_bytes, "packs", (json_int_t)image->packs, "created",
                      (json_int_t)image->created, "pushed", (json_int_t)image->pushed, "trace",
                      image->has_trace));
    } else if (listing->names) {
        puts(image->name);
    } else {
        store_format_time((uint64_t)image->pushed, pushed, sizeof(pushed));
        printf("%-32s %12s %12s %6zu %6s  %s\n", image->name,
               cli_format_bytes(image->bytes, bytes, sizeof(bytes)),
               cli_format_bytes(image->stored_bytes, stored, sizeof(stored)), image->packs,
               image->has_trace ? "yes" : "no", pushed);
    }
    return 0;
}

int remote_ls(struct fl_remote *remote, const struct remote_arguments *args)
{
    struct listing listing = {.names = args->names, .images = args->json ? json_array() : NULL};
    struct fl_error error;
    if (!args->json && !args->names)
        printf("%-32s %12s %12s %6s %6s  %s\n", "IMAGE", "SIZE", "STORED", "PACKS", "TRACE",
               "PUSHED");
    int status = EXIT_DONE;
    if (fl_remote_each(remote, list_one, &listing, &error) < 0)
        status = cli_fail("ls", "%s", error.text);
    if (!args->json)
        return status;
    int printed = store_print_json("ls", json_pack("{s:o}", "images", listing.images));
    return status == EXIT_DONE ? printed : status;
}

// --- rm ---

int remote_rm(struct fl_remote *remote, const struct remote_arguments *args)
{
    int status = EXIT_DONE;
    json_t *removed = args->json ? json_array() : NULL;
    for (int i = 0; i < args->images_count; i++) {
        struct fl_error error;
        if (fl_remote_rm(remote, args->images[i], &error) < 0)
            status = cli_fail("rm", "%s", error.text);
        else if (removed)
            json_array_append_new(removed, json_string(args->images[i]));
    }
    if (!args->json)
        return status;
    int printed = store_print_json("rm", json_pack("{s:o}", "removed", removed));
    return status == EXIT_DONE ? printed : status;
}

// --- gc ---

static void print_gc(const struct fl_remote_gc_result *result, bool dry_run)
{
    char bytes[32];
    printf("%s %s in %" PRIu64 " file%s, and %" PRIu64 " manifest%s\n",
           dry_run ? "would remove" : "removed",
           cli_format_bytes(result->bytes_removed, bytes, sizeof(bytes)), result->files_removed,
           cli_s(result->files_removed), result->manifests_removed,
           cli_s(result->manifests_removed));
    printf("%s in %" PRIu64 " file%s %s condemned: a later run removes them\n",
           cli_format_bytes(result->bytes_condemned, bytes, sizeof(bytes)), result->files_condemned,
           cli_s(result->files_condemned),
           dry_run                        ? "would be"
           : result->files_condemned == 1 ? "is"
                                          : "are");
    printf("%s in %" PRIu64 " file%s stay%s, of %" PRIu64 " image%s and of pushes under way\n",
           cli_format_bytes(result->bytes_kept, bytes, sizeof(bytes)), result->files_kept,
           cli_s(result->files_kept), result->files_kept == 1 ? "s" : "", result->images,
           cli_s(result->images));
}

int remote_gc(struct fl_remote *remote, const struct remote_arguments *args)
{
    struct progress progress;
    struct fl_error error;
    struct fl_remote_gc_result result;
    struct fl_remote_gc_options options = {
        .dry_run = args->dry_run,
        .progress = progress_begin(&progress, "collecting", false),
    };
    int r = fl_remote_gc(remote, &options, &result, &error);
    progress_end(&progress);
    if (r < 0)
        return cli_fail("gc", "%s", error.text);
    if (!args->json) {
        print_gc(&result, args->dry_run);
        return EXIT_DONE;
    }
    return store_print_json(
        "gc",
        json_pack("{s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "dry_run", args->dry_run, "images",
                  (json_int_t)result.images, "files_removed", (json_int_t)result.files_removed,
                  "bytes_removed", (json_int_t)result.bytes_removed, "manifests_removed",
                  (json_int_t)result.manifests_removed, "files_condemned",
                  (json_int_t)result.files_condemned, "bytes_condemned",
                  (json_int_t)result.bytes_condemned, "files_kept", (json_int_t)result.files_kept,
                  "bytes_kept", (json_int_t)result.bytes_kept));
}

// --- verify ---

static int print_verified(const struct fl_remote_verify_result *result, json_t *bad)
{
    int status = result->bad == 0 ? EXIT_DONE : EXIT_FAILED;
    char bytes[32];
    if (!bad) {
        printf("%s: %" PRIu64 " image%s, %" PRIu64 " file%s, %s read; %" PRIu64 " bad\n",
               result->bad == 0 ? "ok" : "BAD", result->images, cli_s(result->images),
               result->files, cli_s(result->files),
               cli_format_bytes(result->bytes, bytes, sizeof(bytes)), result->bad);
        return status;
    }
    int printed = store_print_json(
        "verify", json_pack("{s:b,s:I,s:I,s:I,s:O}", "ok", result->bad == 0, "images",
                            (json_int_t)result->images, "files", (json_int_t)result->files, "bytes",
                            (json_int_t)result->bytes, "bad", bad));
    return status == EXIT_DONE ? printed : status;
}

int remote_verify(struct fl_remote *remote, const struct remote_arguments *args)
{
    struct progress progress;
    struct fl_error error;
    struct fl_remote_verify_result result;
    struct store_found found = {.progress = &progress, .bad = args->json ? json_array() : NULL};
    struct fl_remote_verify_options options = {
        .names = args->images_count > 0 ? (const char *const *)args->images : NULL,
        .names_count = (size_t)args->images_count,
        .quick = args->quick,
        .bad = store_report_bad,
        .bad_arg = &found,
        .progress = progress_begin(&progress, "verifying", true),
    };
    int r = fl_remote_verify(remote, &options, &result, &error);
    progress_end(&progress);
    int status = r < 0 ? cli_fail("verify", "%s", error.text) : print_verified(&result, found.bad);
    json_decref(found.bad);
    return status;
}
