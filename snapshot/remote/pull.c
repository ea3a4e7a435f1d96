// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. What an image consists of comes into tmp/, file by file, and each is
// verified before it gets its name: packs first, the map last. So a pull that ends early has
// published packs at most, which a later pull finds there and gc removes otherwise. A pack that the
// store has is not fetched; since its id is only a random number, its SHA-256 must be right, too.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/image_file.h"
#include "snapshot/index.h"
#include "snapshot/io.h"
#include "snapshot/pack_file.h"
#include "snapshot/pack_name.h"
#include "snapshot/remote/fetch.h"
#include "snapshot/remote/file_hash.h"
#include "snapshot/remote/s3_internal.h"
#include "snapshot/trace_file.h"
#include "snapshot/trace_store.h"

struct pull {
    struct fl_remote *remote;
    struct fl_store *store;
    const struct fl_pull_options *options;
    struct fl_pull_result result;
    struct fl_error *error;
    struct fl_current current;
    bool *missing; // for each pack of the manifest
    struct fl_fetch fetch;
    uint64_t total, moved;
};

static int fail(struct pull *pull, int r)
{
    if (r == -ECANCELED)
        return fl_fail_plain(pull->error, r, "interrupted");
    return fl_fail(pull->error, r, "cannot write to the store %s", pull->store->dir);
}

static int moved(void *arg, uint64_t bytes)
{
    struct pull *pull = arg;
    pull->moved += bytes;
    pull->result.bytes_fetched += bytes;
    return fl_progress_call(&pull->options->progress, pull->moved, pull->total);
}

// --- what is there ---

static int find_manifest(struct pull *pull)
{
    int r = fl_remote_current(pull->remote, pull->options->name, &pull->current, pull->error);
    if (r == 0 && (pull->current.number == 0 || pull->current.manifest.removed))
        r = fl_fail_plain(pull->error, -ENOENT, "%s has no image '%s'",
                          fl_s3_name(pull->remote->s3), pull->options->name);
    return r;
}

// 1: the store has this very image; 0: there is none, or it may be replaced.
static int look_at_name(struct pull *pull)
{
    char name[FL_IMAGE_NAME_BYTES];
    char hex[FL_HEX_BYTES];
    uint64_t bytes;
    int r = fl_image_file_name(pull->options->name, name);
    FL_AUTO_CLOSE int fd = r < 0 ? -1
                                 : openat(pull->store->reader->images_fd, name,
                                          O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 0 : fail(pull, -errno);
    r = fl_file_hash(fd, pull->remote->s3->cancelled, hex, &bytes);
    if (r < 0)
        return fail(pull, r);
    if (strcmp(hex, pull->current.manifest.map.sha256) == 0)
        return 1;
    if (pull->options->replace)
        return 0;
    return fl_fail_plain(pull->error, -EEXIST,
                         "the store %s has an image '%s' already, and it is another (--replace "
                         "replaces it)",
                         pull->store->dir, pull->options->name);
}

// 1: the store has the pack; 0: it has none of this id.
static int look_at_pack(struct pull *pull, const struct fl_remote_pack *pack)
{
    char name[FL_PACK_NAME_BYTES];
    char hex[FL_HEX_BYTES];
    uint64_t bytes;
    fl_pack_name(pack->id, name);
    FL_AUTO_CLOSE int fd =
        openat(pull->store->packs_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 0 : fail(pull, -errno);
    int r = fl_pack_file_hash(fd, pull->remote->s3->cancelled, hex, &bytes);
    if (r < 0)
        return fail(pull, r);
    if (bytes == pack->file.bytes && strcmp(hex, pack->file.sha256) == 0)
        return 1;
    return fl_fail_plain(pull->error, -EBADMSG,
                         "the store's pack %s is not the one of this name in %s: one of them is "
                         "damaged (faultline verify says whether it is this one)",
                         name, fl_s3_name(pull->remote->s3));
}

static int look_at_packs(struct pull *pull)
{
    const struct fl_manifest *manifest = &pull->current.manifest;
    pull->missing = calloc(manifest->packs_count + 1, sizeof(*pull->missing));
    if (!pull->missing)
        return fail(pull, -ENOMEM);
    pull->total = manifest->map.bytes + manifest->trace.bytes;
    for (size_t i = 0; i < manifest->packs_count; i++) {
        int r = look_at_pack(pull, &manifest->packs[i]);
        if (r < 0)
            return r;
        pull->missing[i] = r == 0;
        pull->total += r == 0 ? manifest->packs[i].file.bytes : 0;
        pull->result.packs_shared += (uint64_t)r;
        pull->result.bytes_shared += r == 1 ? manifest->packs[i].file.bytes : 0;
    }
    return 0;
}

// --- packs ---

// Whoever made the manifest may be wrong about what a file is.
static int check_pack(struct pull *pull, int fd, const struct fl_remote_pack *pack)
{
    struct fl_pack *opened;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    int r = copy < 0 ? -errno : fl_pack_open_fd(copy, pack->id, &opened);
    if (r == 0)
        fl_pack_unref(opened);
    return r < 0 ? fl_fail(pull->error, r, "%s/%s is not the pack %016" PRIx64,
                           fl_s3_name(pull->remote->s3), pack->file.key, pack->id)
                 : 0;
}

static int publish_pack(struct pull *pull, struct fl_temp *temp, const struct fl_remote_pack *pack)
{
    char name[FL_PACK_NAME_BYTES];
    fl_pack_name(pack->id, name);
    int r = check_pack(pull, temp->fd, pack);
    if (r < 0)
        return r;
    fl_pack_file_note_hash(temp->fd, pack->file.sha256);
    r = fl_fetch_take(temp);
    if (r == 0)
        r = fl_temp_publish(temp, pull->store->packs_fd, name, false);
    if (r == -EEXIST) { // another pull was faster
        r = look_at_pack(pull, pack);
        return r == 1 ? 0 : r < 0 ? r : fail(pull, -EEXIST);
    }
    return r < 0 ? fail(pull, r) : 0;
}

static int fetch_pack(struct pull *pull, const struct fl_remote_pack *pack)
{
    struct fl_temp temp;
    int r;
    do { // another pull may have brought it meanwhile
        r = look_at_pack(pull, pack);
        if (r == 1) {
            pull->result.packs_shared++;
            pull->result.bytes_shared += pack->file.bytes;
            return 0;
        }
        if (r == 0)
            r = fl_fetch_file(&pull->fetch, FL_FETCH_DATA, &pack->file, &temp, pull->error);
    } while (r == 1);
    if (r < 0)
        return r;
    r = publish_pack(pull, &temp, pack);
    fl_temp_discard(&temp);
    pull->result.packs_fetched += r == 0;
    return r;
}

static int fetch_packs(struct pull *pull)
{
    const struct fl_manifest *manifest = &pull->current.manifest;
    int r = 0;
    for (size_t i = 0; i < manifest->packs_count && r == 0; i++) {
        if (pull->missing[i])
            r = fetch_pack(pull, &manifest->packs[i]);
    }
    return r;
}

// --- image and trace ---

static bool manifest_has(const struct fl_manifest *manifest, uint64_t pack)
{
    for (size_t i = 0; i < manifest->packs_count; i++) {
        if (manifest->packs[i].id == pack)
            return true;
    }
    return false;
}

static int check_map(struct pull *pull, int fd, struct fl_disk_image_header *ret_header)
{
    const struct fl_manifest *manifest = &pull->current.manifest;
    struct fl_image_file file;
    char content_id[FL_HEX_BYTES];
    int r = fl_image_file_load(fd, manifest->name, &file);
    if (r == 0) {
        fl_hex(file.header.content_id.bytes, sizeof(file.header.content_id.bytes), content_id);
        if (strcmp(content_id, manifest->content_id) != 0)
            r = -EBADMSG;
        for (uint32_t i = 0; i < file.header.packs && r == 0; i++)
            r = manifest_has(manifest, file.pack_ids[i]) ? 0 : -EBADMSG;
        *ret_header = file.header;
        fl_image_file_free(&file);
    }
    return r < 0 ? fl_fail(pull->error, r, "%s/%s is not the map of image '%s'",
                           fl_s3_name(pull->remote->s3), manifest->map.key, manifest->name)
                 : 0;
}

static int publish_map(struct pull *pull, struct fl_temp *temp)
{
    char name[FL_IMAGE_NAME_BYTES];
    int r = fl_image_file_name(pull->options->name, name);
    if (r == 0)
        r = fl_store_lock_names(pull->store);
    if (r < 0)
        return fail(pull, r);
    r = fl_fetch_take(temp);
    if (r == 0)
        r = fl_temp_publish(temp, pull->store->reader->images_fd, name, pull->options->replace);
    fl_store_unlock_names(pull->store);
    if (r == -EEXIST && look_at_name(pull) == 1) // another pull was faster
        return 0;
    if (r == -EEXIST)
        return fl_fail_plain(pull->error, r, "the store %s has got an image '%s' meanwhile",
                             pull->store->dir, pull->options->name);
    return r < 0 ? fail(pull, r) : 0;
}

static bool trace_fits(int fd, const struct fl_disk_image_header *image)
{
    struct fl_disk_trace_header header;
    uint64_t bytes;
    return fl_read_header(fd, fl_magic_trace, FL_TRACE_VERSION, &header, sizeof(header), &bytes) ==
               0 &&
           memcmp(&header.content_id, &image->content_id, sizeof(header.content_id)) == 0 &&
           memcmp(header.name, image->name, FL_NAME_MAX) == 0;
}

// A trace that was recorded here stays: it is a hint, and who has run the image knows best.
static int publish_trace(struct pull *pull, const struct fl_disk_image_header *image)
{
    struct fl_temp temp;
    struct fl_disk_trace_header local;
    char name[FL_TRACE_NAME_BYTES];
    int dir = -1;
    if (!*pull->current.manifest.trace.sha256)
        return 0;
    int r;
    do { // 1: another pull has had it, which says nothing about this store's trace
        r = fl_fetch_file(&pull->fetch, FL_FETCH_DATA, &pull->current.manifest.trace, &temp,
                          pull->error);
    } while (r == 1);
    if (r < 0)
        return r;
    if (trace_fits(temp.fd, image)) {
        r = fl_trace_file_name(pull->options->name, name);
        if (r == 0)
            r = fl_trace_dir_open(pull->store->reader->dir_fd, true, &dir);
        if (r == 0)
            r = fl_trace_dir_lock(dir);
        if (r == 0 && fl_trace_check(pull->store, image, &local) != 0) {
            r = fl_fetch_take(&temp);
            if (r == 0)
                r = fl_temp_publish(&temp, dir, name, true);
        }
        if (r < 0)
            r = fail(pull, r);
    }
    fl_cleanup_close(&dir);
    fl_temp_discard(&temp);
    return r;
}

// The image is there: from here on nothing is a failure of pulling.
static void learn_packs(struct pull *pull)
{
    const struct fl_manifest *manifest = &pull->current.manifest;
    for (size_t i = 0; i < manifest->packs_count && pull->result.index_error == 0; i++) {
        if (pull->missing[i])
            pull->result.index_error =
                fl_index_learn(pull->store, manifest->packs[i].id, FL_INDEX_KEEP_KNOWN,
                               &pull->result.index_rebuilt);
    }
}

static int fetch_image(struct pull *pull)
{
    struct fl_temp temp;
    struct fl_disk_image_header header;
    int r;
    while ((r = fl_fetch_file(&pull->fetch, FL_FETCH_MAP, &pull->current.manifest.map, &temp,
                              pull->error)) == 1) {
        r = look_at_name(pull);
        pull->result.already = r == 1;
        if (r != 0)
            return r < 0 ? r : 0;
    }
    if (r < 0)
        return r;
    r = check_map(pull, temp.fd, &header);
    if (r == 0)
        r = fetch_packs(pull);
    if (r == 0)
        r = publish_trace(pull, &header);
    if (r == 0)
        r = publish_map(pull, &temp);
    fl_temp_discard(&temp);
    return r;
}

static int pull_locked(struct pull *pull)
{
    int r = look_at_name(pull);
    if (r == 1) {
        pull->result.already = true;
        return 0;
    }
    if (r == 0)
        r = look_at_packs(pull);
    if (r == 0)
        r = fetch_image(pull);
    if (r == 0 && !pull->result.already)
        learn_packs(pull);
    return r;
}

int fl_remote_pull(struct fl_remote *remote, struct fl_store *store,
                   const struct fl_pull_options *options, struct fl_pull_result *ret_result,
                   struct fl_error *ret_error)
{
    struct pull pull = {.remote = remote, .store = store, .options = options, .error = ret_error};
    pull.fetch = (struct fl_fetch){.remote = remote, .store = store, .moved = moved, .arg = &pull};
    int r = find_manifest(&pull);
    if (r == 0)
        r = fl_store_lock(store, FL_LOCK_SHARED, ret_error); // gc waits
    if (r == 0) {
        r = pull_locked(&pull);
        fl_store_unlock(store);
    }
    pull.result.bytes_resumed = pull.fetch.resumed;
    if (r == 0)
        *ret_result = pull.result;
    free(pull.missing);
    fl_manifest_free(&pull.current.manifest);
    return r;
}
