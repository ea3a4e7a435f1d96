// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. First every file that the image consists of is in the bucket: its packs, its
// map, its trace. Then one small object, the manifest, makes it an image. A push that ends before
// that has published nothing; what it has sent is used by the next one, or collected. If it took so
// long that what it relies on could have been collected, it looks again.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/image_file.h"
#include "snapshot/io.h"
#include "snapshot/pack_name.h"
#include "snapshot/remote/catalog.h"
#include "snapshot/remote/file_hash.h"
#include "snapshot/remote/push_files.h"
#include "snapshot/remote/s3_internal.h"
#include "snapshot/trace_file.h"
#include "snapshot/trace_store.h"

enum { MAP, TRACE, FIRST_PACK };
enum { ROUNDS_MAX = 3, RACES_MAX = 16 };
enum { HOLDS_S = FL_REMOTE_GRACE_S / 2 };

struct push {
    struct fl_remote *remote;
    struct fl_store *store;
    const struct fl_push_options *options;
    struct fl_push_result result;
    struct fl_error *error;
    struct fl_disk_image_header header;
    struct fl_push_file *files; // map, trace, packs
    size_t count;
    uint64_t total, moved;   // bytes to be sent
    struct fl_since since;   // what was found in the bucket holds from then on
    struct fl_current there; // what the name is in the bucket
};

// --- the image ---

static int fail(struct push *push, int r)
{
    if (r == -ECANCELED)
        return fl_fail_plain(push->error, r, "interrupted");
    return fl_fail(push->error, r, "cannot push the image '%s'", push->options->name);
}

static int open_packs(struct push *push, const uint64_t *ids)
{
    for (uint32_t i = 0; i < push->header.packs; i++) {
        struct fl_push_file *file = &push->files[FIRST_PACK + i];
        char name[FL_PACK_NAME_BYTES];
        fl_pack_name(ids[i], name);
        file->pack_id = ids[i];
        file->fd = openat(push->store->packs_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (file->fd < 0)
            return fl_fail(push->error, -errno, "cannot open the pack %s of image '%s'", name,
                           push->options->name);
        int r = fl_pack_file_hash(file->fd, push->remote->s3->cancelled, file->file.sha256,
                                  &file->file.bytes);
        if (r < 0)
            return fail(push, r);
        close(file->fd); // it is opened again to be sent: there may be thousands
        file->fd = 0;
    }
    return 0;
}

// A trace that is of other content, or cannot be read, is not part of the image.
static int open_trace(struct push *push)
{
    struct fl_push_file *file = &push->files[TRACE];
    struct fl_disk_trace_header trace;
    char name[FL_TRACE_NAME_BYTES];
    int dir;
    if (fl_trace_check(push->store, &push->header, &trace) < 0 ||
        fl_trace_file_name(push->options->name, name) < 0 ||
        fl_trace_dir_open(push->store->reader->dir_fd, false, &dir) < 0)
        return 0;
    file->fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    close(dir);
    if (file->fd < 0)
        return 0;
    int r =
        fl_file_hash(file->fd, push->remote->s3->cancelled, file->file.sha256, &file->file.bytes);
    return r < 0 ? fail(push, r) : 0;
}

static int open_image(struct push *push)
{
    char name[FL_IMAGE_NAME_BYTES];
    FL_AUTO_FREE uint64_t *ids = NULL;
    int r = fl_image_file_name(push->options->name, name);
    if (r < 0)
        return fl_fail_plain(push->error, r, "'%s' cannot name an image", push->options->name);
    int fd = openat(push->store->reader->images_fd, name,
                    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    r = fd < 0 ? -errno : fl_image_file_header(fd, push->options->name, &push->header);
    if (r == 0)
        r = fl_image_file_packs(fd, &push->header, &ids);
    size_t count = FIRST_PACK + (r == 0 ? push->header.packs : 0);
    push->files = calloc(count, sizeof(*push->files));
    if (!push->files) {
        close(fd);
        return fail(push, -ENOMEM);
    }
    push->count = count;
    for (size_t i = 0; i < count; i++)
        push->files[i].fd = -1;
    push->files[MAP].fd = fd;
    if (r < 0)
        return fl_image_failed(push->store, push->options->name, r, push->error);
    r = fl_file_hash(fd, push->remote->s3->cancelled, push->files[MAP].file.sha256,
                     &push->files[MAP].file.bytes);
    if (r < 0)
        return fail(push, r);
    r = open_trace(push);
    return r < 0 ? r : open_packs(push, ids);
}

static void close_image(struct push *push)
{
    for (size_t i = 0; i < push->count && i < FIRST_PACK; i++)
        fl_cleanup_close(&push->files[i].fd);
    free(push->files);
}

// --- what is there ---

static bool same_image(const struct push *push, const struct fl_manifest *manifest)
{
    const char *trace = push->files[TRACE].file.sha256;
    return strcmp(manifest->map.sha256, push->files[MAP].file.sha256) == 0 &&
           (!*trace || strcmp(manifest->trace.sha256, trace) == 0);
}

// 0: the name is free, or may be replaced; 1: the image is there.
static int look_at_name(struct push *push)
{
    struct fl_manifest *manifest = &push->there.manifest;
    fl_manifest_free(manifest);
    int r = fl_remote_current(push->remote, push->options->name, &push->there, push->error);
    if (r < 0 || push->there.number == 0 || manifest->removed)
        return r;
    if (same_image(push, manifest))
        return 1;
    // The same image with another trace replaces nothing but that.
    if (push->options->replace || strcmp(manifest->map.sha256, push->files[MAP].file.sha256) == 0)
        return 0;
    return fl_fail_plain(push->error, -EEXIST,
                         "%s has an image '%s' already, and it is another (--replace replaces it)",
                         fl_s3_name(push->remote->s3), push->options->name);
}

// --- sending ---

static int moved(void *arg, uint64_t bytes)
{
    struct push *push = arg;
    push->moved += bytes;
    return fl_progress_call(&push->options->progress, push->moved, push->total);
}

static int send_file(struct push *push, struct fl_push_file *file)
{
    if (file->pack_id == 0)
        return fl_push_send(push->remote, file, moved, push, push->error);
    char name[FL_PACK_NAME_BYTES];
    int r = push->options->trust_store
                ? 0
                : fl_push_check_pack(push->store, file->pack_id, push->remote->s3->cancelled,
                                     push->error);
    if (r < 0)
        return r;
    fl_pack_name(file->pack_id, name);
    file->fd = openat(push->store->packs_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    r = file->fd < 0 ? fail(push, -errno)
                     : fl_push_send(push->remote, file, moved, push, push->error);
    if (file->fd >= 0)
        close(file->fd);
    file->fd = 0;
    return r;
}

static bool is_missing(const struct fl_push_file *file)
{
    return file->fd >= 0 && !*file->file.key;
}

static int send_missing(struct push *push)
{
    push->total = push->moved;
    for (size_t i = 0; i < push->count; i++)
        push->total += is_missing(&push->files[i]) ? push->files[i].file.bytes : 0;
    int r = 0;
    // Packs first: one that is damaged is found before anything is sent.
    for (size_t i = push->count; i > 0 && r == 0; i--) {
        if (is_missing(&push->files[i - 1]))
            r = send_file(push, &push->files[i - 1]);
    }
    return r;
}

static bool still_holds(const struct push *push)
{
    return fl_s3_now_ms() - push->since.ms < HOLDS_S * UINT64_C(1000) &&
           (push->since.server == 0 || push->remote->s3->date - push->since.server < HOLDS_S);
}

// Puts all files there, and knows at its end that they stay for long enough to be published.
static int settle_files(struct push *push)
{
    for (int round = 0; round < ROUNDS_MAX; round++) {
        int r = fl_push_find(push->remote, push->files, push->count, &push->since, push->error);
        if (r == 0)
            r = send_missing(push);
        if (r < 0 || still_holds(push))
            return r;
    }
    return fl_fail_plain(push->error, -ETIMEDOUT,
                         "the image '%s' could not be pushed within half a day",
                         push->options->name);
}

// --- publishing ---

static int make_manifest(const struct push *push, struct fl_manifest *manifest)
{
    size_t packs = push->count - FIRST_PACK;
    strcpy(manifest->name, push->options->name);
    fl_hex(push->header.content_id.bytes, sizeof(push->header.content_id.bytes),
           manifest->content_id);
    manifest->bytes = push->header.bytes;
    manifest->created = push->header.created;
    manifest->map = push->files[MAP].file;
    manifest->trace = push->files[TRACE].file;
    manifest->packs = calloc(packs + 1, sizeof(*manifest->packs));
    if (!manifest->packs)
        return -ENOMEM;
    manifest->packs_count = packs;
    for (size_t i = 0; i < packs; i++) {
        manifest->packs[i].id = push->files[FIRST_PACK + i].pack_id;
        manifest->packs[i].file = push->files[FIRST_PACK + i].file;
    }
    return 0;
}

// Another push may take the number first: then the name is looked at again.
static int publish(struct push *push)
{
    struct fl_manifest manifest = {.packs = NULL};
    int r = make_manifest(push, &manifest);
    if (r < 0)
        return fail(push, r);
    for (int race = 0; race < RACES_MAX; race++) {
        r = fl_remote_publish(push->remote, push->there.number + 1, &manifest, push->error);
        if (r != -EEXIST)
            break;
        r = look_at_name(push);
        if (r != 0) {
            push->result.already = r == 1;
            break;
        }
        r = -EEXIST;
    }
    fl_manifest_free(&manifest);
    return r < 0 ? r : 0;
}

static void count_files(struct push *push)
{
    for (size_t i = 0; i < push->count; i++) {
        const struct fl_push_file *file = &push->files[i];
        if (file->fd < 0)
            continue;
        *(file->sent ? &push->result.files_sent : &push->result.files_shared) += 1;
        *(file->sent ? &push->result.bytes_sent : &push->result.bytes_shared) += file->file.bytes;
    }
}

static int push_locked(struct push *push)
{
    int r = open_image(push);
    if (r == 0)
        r = fl_remote_check_server(push->remote, push->error);
    if (r == 0)
        r = look_at_name(push);
    if (r == 1) {
        push->result.already = true;
        return 0;
    }
    if (r == 0)
        r = settle_files(push);
    if (r == 0)
        r = publish(push);
    if (r == 0)
        count_files(push);
    return r;
}

int fl_remote_push(struct fl_remote *remote, struct fl_store *store,
                   const struct fl_push_options *options, struct fl_push_result *ret_result,
                   struct fl_error *ret_error)
{
    struct push push = {.remote = remote, .store = store, .options = options, .error = ret_error};
    int r = fl_store_lock(store, FL_LOCK_SHARED, ret_error); // gc waits
    if (r < 0)
        return r;
    r = push_locked(&push);
    fl_store_unlock(store);
    if (r == 0)
        *ret_result = push.result;
    fl_manifest_free(&push.there.manifest);
    close_image(&push);
    return r;
}
