// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The manifests are the roots. A data file that none of them names and that is
// older than the grace period is condemned: its key is written to a list in the bucket. A list that
// is older than the grace period, by the server's clock, is carried out: a file of it that a push
// has relied on meanwhile is named by a manifest by now, as pushes are over within half of that
// period, and no push that looked later has relied on it (push_files.c). Manifests that were
// replaced go when what replaced them is older than the grace period, so that a pull that has begun
// can end. The last of a name stays, even of an image that was removed: its number must not be used
// again.
//
// Every removal may come late or twice, from a run that was thought dead: no key is used again, and
// a list goes only if none of its files is needed by manifests that are about to go themselves.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/publish.h"
#include "snapshot/remote/push_files.h"
#include "snapshot/remote/s3_internal.h"
#include "snapshot/store_dir.h"

#define RUN_MS (FL_REMOTE_GRACE_S * UINT64_C(1000) / 4)

struct root {
    char key[FL_DATA_KEY_BYTES];
    bool current; // a manifest that counts names it
};

struct gc {
    struct fl_remote *remote;
    const struct fl_remote_gc_options *options;
    struct fl_remote_gc_result result;
    struct fl_error *error;
    uint64_t since_ms;
    time_t now;         // of the server
    struct root *roots; // sorted by key
    size_t count, room;
    struct fl_condemned condemned; // all that are on a list
};

static bool old_enough(const struct gc *gc, time_t modified)
{
    return gc->now - modified > FL_REMOTE_GRACE_S;
}

// --- roots ---

static int add_root(struct gc *gc, const struct fl_remote_file *file, bool current)
{
    if (!*file->sha256)
        return 0;
    if (gc->count == gc->room) {
        size_t room = gc->room ? 2 * gc->room : 256;
        struct root *grown = realloc(gc->roots, room * sizeof(*grown));
        if (!grown)
            return fl_fail(gc->error, -ENOMEM, "cannot collect %s", fl_s3_name(gc->remote->s3));
        gc->roots = grown;
        gc->room = room;
    }
    struct root *root = &gc->roots[gc->count++];
    memcpy(root->key, file->key, sizeof(root->key));
    root->current = current;
    return 0;
}

// Of equal keys one that is current comes first.
static int compare_roots(const void *left, const void *right)
{
    const struct root *a = left;
    const struct root *b = right;
    int order = strcmp(a->key, b->key);
    return order != 0 ? order : (int)b->current - (int)a->current;
}

static const struct root *find_root(const struct gc *gc, const char *key)
{
    size_t low = 0;
    size_t high = gc->count;
    while (low < high) { // the first of equal ones
        size_t middle = low + (high - low) / 2;
        if (strcmp(gc->roots[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < gc->count && strcmp(gc->roots[low].key, key) == 0 ? &gc->roots[low] : NULL;
}

static int mark(struct gc *gc, const char *name, uint64_t number, bool current)
{
    struct fl_manifest manifest;
    int r = fl_remote_manifest(gc->remote, name, number, &manifest, gc->error);
    if (r == -ENOENT && !current) // another run has collected it
        return 0;
    if (r < 0)
        return r; // it is not known what it needs: nothing is collected
    r = add_root(gc, &manifest.map, current);
    if (r == 0)
        r = add_root(gc, &manifest.trace, current);
    for (size_t i = 0; i < manifest.packs_count && r == 0; i++)
        r = add_root(gc, &manifest.packs[i].file, current);
    gc->result.images += current && !manifest.removed;
    fl_manifest_free(&manifest);
    return r;
}

static int remove_manifest(struct gc *gc, const char *key)
{
    gc->result.manifests_removed++;
    return gc->options->dry_run ? 0 : fl_s3_delete(gc->remote->link, key, gc->error);
}

// What a name was before counts as needed in this run, whether it goes in it or not.
static int mark_all(struct gc *gc, const struct fl_s3_listing *manifests)
{
    int r = 0;
    for (size_t i = 0; i < manifests->count && r == 0; i++) {
        char name[FL_NAME_MAX + 1];
        char next[FL_NAME_MAX + 1];
        uint64_t number;
        uint64_t next_number;
        if (!fl_manifest_parse_key(manifests->objects[i].key, name, &number))
            continue;
        bool replaced = i + 1 < manifests->count &&
                        fl_manifest_parse_key(manifests->objects[i + 1].key, next, &next_number) &&
                        strcmp(name, next) == 0;
        r = mark(gc, name, number, !replaced);
        if (r == 0 && replaced && old_enough(gc, manifests->objects[i + 1].modified))
            r = remove_manifest(gc, manifests->objects[i].key);
        if (r == 0)
            r = fl_progress_call(&gc->options->progress, i + 1, manifests->count);
    }
    if (gc->count > 0)
        qsort(gc->roots, gc->count, sizeof(*gc->roots), compare_roots);
    return r;
}

// --- lists that are old enough ---

static int compare_object(const void *key, const void *object)
{
    return strcmp(key, ((const struct fl_s3_object *)object)->key);
}

static int remove_file(struct gc *gc, const struct fl_s3_listing *data, const char *key)
{
    const struct fl_s3_object *object =
        data->count > 0
            ? bsearch(key, data->objects, data->count, sizeof(*data->objects), compare_object)
            : NULL;
    if (!object)
        return 0;
    gc->result.files_removed++;
    gc->result.bytes_removed += object->bytes;
    if (gc->options->dry_run)
        return 0;
    if (fl_s3_now_ms() - gc->since_ms > RUN_MS)
        return fl_fail_plain(gc->error, -ETIMEDOUT,
                             "it took too long to be safe; run it again for the rest");
    return fl_s3_delete(gc->remote->link, key, gc->error);
}

static int carry_out(struct gc *gc, const char *list, const struct fl_s3_listing *data)
{
    struct fl_condemned keys = {.keys = NULL};
    bool held = false;
    int r = fl_condemned_add(gc->remote, list, &keys, gc->error);
    for (size_t i = 0; i < keys.count && r == 0; i++) {
        const struct root *root = find_root(gc, keys.keys[i]);
        held = held || (root && !root->current);
        if (!root)
            r = remove_file(gc, data, keys.keys[i]);
        if (r == 0)
            r = fl_progress_call(&gc->options->progress, i + 1, keys.count);
    }
    fl_condemned_free(&keys);
    if (r == 0 && !held && !gc->options->dry_run)
        r = fl_s3_delete(gc->remote->link, list, gc->error);
    return r;
}

// --- what is condemned now ---

static int write_list(struct gc *gc, FILE *to, char **text, const size_t *bytes, uint64_t count)
{
    char key[sizeof(FL_CONDEMNED_PREFIX) + FL_HEX_BYTES + 16];
    char hex[FL_HEX_BYTES];
    uint64_t number;
    if (fclose(to) != 0)
        return fl_fail(gc->error, -ENOMEM, "cannot collect %s", fl_s3_name(gc->remote->s3));
    int r = 0;
    if (count > 0 && !gc->options->dry_run) {
        r = fl_random_id(&number);
        if (r == 0)
            r = fl_sha256_hex(*text, *bytes, hex);
        if (r == 0)
            snprintf(key, sizeof(key), FL_CONDEMNED_PREFIX "%s.%016" PRIx64, hex, number);
        r = r < 0 ? fl_fail(gc->error, r, "cannot collect %s", fl_s3_name(gc->remote->s3))
                  : fl_s3_put(gc->remote->link, key, *text, *bytes, gc->error);
    }
    return r;
}

static int condemn(struct gc *gc, const struct fl_s3_listing *data)
{
    char *text = NULL;
    size_t bytes = 0;
    uint64_t count = 0;
    FILE *to = open_memstream(&text, &bytes);
    if (!to)
        return fl_fail(gc->error, -ENOMEM, "cannot collect %s", fl_s3_name(gc->remote->s3));
    for (size_t i = 0; i < data->count; i++) {
        const struct fl_s3_object *object = &data->objects[i];
        if (!fl_data_key_valid(object->key))
            continue;
        bool listed = fl_condemned_has(&gc->condemned, object->key);
        bool kept = find_root(gc, object->key) ||
                    (!listed && (!old_enough(gc, object->modified) || count == FL_CONDEMNED_MAX));
        gc->result.files_kept += kept;
        gc->result.bytes_kept += kept ? object->bytes : 0;
        gc->result.files_condemned += !kept;
        gc->result.bytes_condemned += kept ? 0 : object->bytes;
        if (!kept && !listed) {
            fprintf(to, "%s\n", object->key);
            count++;
        }
    }
    int r = write_list(gc, to, &text, &bytes, count);
    free(text);
    return r;
}

// --- all of it, in an order that matters: lists, then manifests, then data ---

static int read_lists(struct gc *gc, const struct fl_s3_listing *lists)
{
    int r = 0;
    for (size_t i = 0; i < lists->count && r == 0; i++)
        r = fl_condemned_add(gc->remote, lists->objects[i].key, &gc->condemned, gc->error);
    fl_condemned_sort(&gc->condemned);
    return r;
}

static int collect(struct gc *gc, const struct fl_s3_listing *lists)
{
    struct fl_s3_listing manifests = {.objects = NULL};
    struct fl_s3_listing data = {.objects = NULL};
    gc->now = lists->now;
    if (gc->now == 0)
        return fl_fail_plain(gc->error, -EPROTO,
                             "the server of %s does not say what time it is, so it is not known "
                             "how old anything is",
                             fl_s3_name(gc->remote->s3));
    int r = read_lists(gc, lists);
    if (r == 0)
        r = fl_s3_list(gc->remote->link, FL_IMAGES_PREFIX, &manifests, gc->error);
    if (r == 0)
        r = mark_all(gc, &manifests);
    if (r == 0)
        r = fl_s3_list(gc->remote->link, FL_DATA_PREFIX, &data, gc->error);
    for (size_t i = 0; i < lists->count && r == 0; i++) {
        if (old_enough(gc, lists->objects[i].modified) &&
            fl_hashed_key_valid(lists->objects[i].key, FL_CONDEMNED_PREFIX))
            r = carry_out(gc, lists->objects[i].key, &data);
    }
    if (r == 0)
        r = condemn(gc, &data);
    // Those that are gone now were still on a list.
    if (r == 0) {
        gc->result.files_condemned -= gc->result.files_removed;
        gc->result.bytes_condemned -= gc->result.bytes_removed;
    }
    fl_s3_listing_free(&manifests);
    fl_s3_listing_free(&data);
    return r;
}

int fl_remote_gc(struct fl_remote *remote, const struct fl_remote_gc_options *options,
                 struct fl_remote_gc_result *ret_result, struct fl_error *ret_error)
{
    struct fl_s3_listing lists;
    struct gc gc = {
        .remote = remote, .options = options, .error = ret_error, .since_ms = fl_s3_now_ms()};
    int r = options->dry_run ? 0 : fl_remote_check_server(remote, ret_error);
    if (r < 0)
        return r;
    r = fl_s3_list(remote->link, FL_CONDEMNED_PREFIX, &lists, ret_error);
    if (r == 0)
        r = collect(&gc, &lists);
    if (r == -ECANCELED)
        fl_fail_plain(ret_error, r, "interrupted; run it again for the rest");
    if (r == 0)
        *ret_result = gc.result;
    fl_s3_listing_free(&lists);
    fl_condemned_free(&gc.condemned);
    free(gc.roots);
    return r;
}
