// SPDX-License-Identifier: Apache-2.0
//
// Verifies a remote store: whether every file that an image needs is there and has the SHA-256 that
// its manifest says. A file that several images need is read once.
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/remote/catalog.h"
#include "snapshot/remote/parts.h"
#include "snapshot/store_dir.h"

enum { PART_BYTES = 8 << 20 };

struct needed {
    char image[FL_NAME_MAX + 1]; // one of those that need it
    struct fl_remote_file file;
};

struct check {
    struct fl_remote *remote;
    const struct fl_remote_verify_options *options;
    struct fl_remote_verify_result result;
    struct fl_error *error;
    struct needed *needed;
    size_t count, room;
    uint64_t total, done;
    EVP_MD_CTX *hash;
};

static void report(struct check *check, const char *object, const char *problem)
{
    check->result.bad++;
    if (check->options->bad)
        check->options->bad(check->options->bad_arg, object, problem);
}

static int need(struct check *check, const char *image, const struct fl_remote_file *file)
{
    if (!*file->sha256)
        return 0;
    if (check->count == check->room) {
        check->room = check->room ? 2 * check->room : 256;
        struct needed *grown = realloc(check->needed, check->room * sizeof(*grown));
        if (!grown)
            return fl_fail(check->error, -ENOMEM, "cannot verify %s",
                           fl_s3_name(check->remote->s3));
        check->needed = grown;
    }
    struct needed *needed = &check->needed[check->count++];
    strcpy(needed->image, image);
    needed->file = *file;
    return 0;
}

static int need_image(struct check *check, const char *name, const struct fl_manifest *manifest)
{
    int r = need(check, name, &manifest->map);
    if (r == 0)
        r = need(check, name, &manifest->trace);
    for (size_t i = 0; i < manifest->packs_count && r == 0; i++)
        r = need(check, name, &manifest->packs[i].file);
    check->result.images++;
    return r;
}

static void report_image(struct check *check, const char *name, const struct fl_error *error)
{
    char object[FL_NAME_MAX + 8];
    snprintf(object, sizeof(object), "image %s", name);
    report(check, object, error->text);
}

static int look_at_image(struct check *check, const char *name)
{
    struct fl_current current;
    struct fl_error error;
    int r = fl_remote_current(check->remote, name, &current, &error);
    if (r == -EBADMSG || r == -EPROTONOSUPPORT || r == -EFBIG) {
        report_image(check, name, &error);
        return 0;
    }
    if (r < 0) {
        *check->error = error;
        return r;
    }
    if (current.number > 0 && !current.manifest.removed)
        r = need_image(check, name, &current.manifest);
    else
        r = fl_fail_plain(check->error, -ENOENT, "%s has no image '%s'",
                          fl_s3_name(check->remote->s3), name);
    fl_manifest_free(&current.manifest);
    return r;
}

static int look_at_listed(void *arg, const struct fl_listed *listed)
{
    struct check *check = arg;
    if (!listed->manifest)
        report_image(check, listed->name, &listed->error);
    else if (!listed->manifest->removed)
        return need_image(check, listed->name, listed->manifest);
    return 0;
}

static int compare_needed(const void *left, const void *right)
{
    return strcmp(((const struct needed *)left)->file.key,
                  ((const struct needed *)right)->file.key);
}

static void drop_equal(struct check *check)
{
    size_t kept = 0;
    if (check->count > 0)
        qsort(check->needed, check->count, sizeof(*check->needed), compare_needed);
    for (size_t i = 0; i < check->count; i++) {
        if (kept > 0 && strcmp(check->needed[kept - 1].file.key, check->needed[i].file.key) == 0)
            continue;
        check->needed[kept++] = check->needed[i];
    }
    check->count = kept;
    for (size_t i = 0; i < kept; i++)
        check->total += check->needed[i].file.bytes;
}

// --- reading ---

struct reading {
    struct check *check;
    const struct needed *needed;
};

static int get_part(void *arg, struct fl_s3_link *link, const struct fl_part *part,
                    struct fl_error *ret_error)
{
    const struct reading *reading = arg;
    return fl_s3_get_range(link, reading->needed->file.key, part->offset, part->bytes,
                           reading->needed->file.bytes, part->buf, ret_error);
}

static int hash_part(void *arg, const struct fl_part *part, struct fl_error *ret_error)
{
    struct check *check = ((struct reading *)arg)->check;
    if (EVP_DigestUpdate(check->hash, part->buf, part->bytes) != 1)
        return fl_fail(ret_error, -EIO, "cannot hash a file");
    check->done += part->bytes;
    check->result.bytes += part->bytes;
    int r = fl_progress_call(&check->options->progress, check->done, check->total);
    return r < 0 ? fl_fail_plain(ret_error, r, "interrupted") : 0;
}

static int read_file(struct check *check, const struct needed *needed, char ret_hex[FL_HEX_BYTES])
{
    unsigned char digest[32];
    struct reading reading = {check, needed};
    struct fl_parts parts = {
        .s3 = check->remote->s3,
        .end = needed->file.bytes,
        .part_bytes = PART_BYTES,
        .work = get_part,
        .after = hash_part,
        .arg = &reading,
    };
    if (EVP_DigestInit_ex(check->hash, EVP_sha256(), NULL) != 1)
        return fl_fail(check->error, -EIO, "cannot hash a file");
    int r = fl_parts_run(&parts, check->error);
    if (r == 0 && EVP_DigestFinal_ex(check->hash, digest, NULL) != 1)
        return fl_fail(check->error, -EIO, "cannot hash a file");
    if (r == 0)
        fl_hex(digest, sizeof(digest), ret_hex);
    return r;
}

static int check_file(struct check *check, const struct needed *needed)
{
    char hex[FL_HEX_BYTES];
    char problem[512];
    check->result.files++;
    int r = read_file(check, needed, hex);
    if (r == 0 && strcmp(hex, needed->file.sha256) == 0)
        return 0;
    if (r < 0 && r != -ENOENT && r != -EPROTO)
        return r;
    snprintf(problem, sizeof(problem), "%s (image %s needs it)",
             r == 0         ? "its bytes are not those of its SHA-256"
             : r == -ENOENT ? "it is not there"
                            : "it has another size, or cannot be read",
             needed->image);
    report(check, needed->file.key, problem);
    return 0;
}

static int check_files(struct check *check)
{
    int r = 0;
    check->hash = EVP_MD_CTX_new();
    if (!check->hash)
        return fl_fail(check->error, -ENOMEM, "cannot verify %s", fl_s3_name(check->remote->s3));
    for (size_t i = 0; i < check->count && r == 0; i++)
        r = check_file(check, &check->needed[i]);
    EVP_MD_CTX_free(check->hash);
    return r;
}

// Both lists are sorted.
static int compare_listing(struct check *check)
{
    struct fl_s3_listing data;
    size_t at = 0;
    int r = fl_s3_list(check->remote->link, FL_DATA_PREFIX, &data, check->error);
    for (size_t i = 0; i < check->count && r == 0; i++) {
        const struct needed *needed = &check->needed[i];
        char problem[512];
        check->result.files++;
        while (at < data.count && strcmp(data.objects[at].key, needed->file.key) < 0)
            at++;
        bool there = at < data.count && strcmp(data.objects[at].key, needed->file.key) == 0;
        if (there && data.objects[at].bytes == needed->file.bytes)
            continue;
        snprintf(problem, sizeof(problem), "%s (image %s needs it)",
                 there ? "it has another size" : "it is not there", needed->image);
        report(check, needed->file.key, problem);
    }
    fl_s3_listing_free(&data);
    return r;
}

int fl_remote_verify(struct fl_remote *remote, const struct fl_remote_verify_options *options,
                     struct fl_remote_verify_result *ret_result, struct fl_error *ret_error)
{
    struct check check = {.remote = remote, .options = options, .error = ret_error};
    int r = 0;
    if (!options->names)
        r = fl_remote_each_manifest(remote, look_at_listed, &check, ret_error);
    for (size_t i = 0; options->names && i < options->names_count && r == 0; i++)
        r = look_at_image(&check, options->names[i]);
    drop_equal(&check);
    if (r == 0)
        r = options->quick ? compare_listing(&check) : check_files(&check);
    free(check.needed);
    if (r == 0)
        *ret_result = check.result;
    return r;
}
