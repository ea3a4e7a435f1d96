// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. Collecting removes what no image refers to. Images are the roots: every pack
// that an image's table names stays, and all others are removed, first from the index and then from
// the disk. gc holds the store's lock exclusively, so no process uses the files in tmp/ and they
// are removed, too. A kill in between leaves a pack without index entries or entries without a
// pack: the next run finds both, and neither does harm meanwhile.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/bad_list.h"
#include "snapshot/image.h"
#include "snapshot/image_file.h"
#include "snapshot/index.h"
#include "snapshot/io.h"
#include "snapshot/offer_left.h"
#include "snapshot/pack_list.h"
#include "snapshot/pack_name.h"
#include "snapshot/store_dir.h"
#include "snapshot/trace_file.h"
#include "snapshot/trace_store.h"

// A pack that stays, and the frames of it that an image refers to.
struct live {
    uint64_t id;
    uint64_t *frames; // bitmap
};

struct gc {
    struct fl_store *store;
    const struct fl_gc_options *options;
    struct fl_error *error;
    struct fl_gc_result result;
    struct live *live;
    size_t live_count, live_room;
    struct fl_index *index; // NULL: cannot be used
};

static struct live *find_live(const struct gc *gc, uint64_t id)
{
    for (size_t i = 0; i < gc->live_count; i++) {
        if (gc->live[i].id == id)
            return &gc->live[i];
    }
    return NULL;
}

static int add_live(struct gc *gc, const struct fl_pack *pack, struct live **ret_live)
{
    if (gc->live_count == gc->live_room) {
        size_t room = gc->live_room ? gc->live_room * 2 : 64;
        struct live *grown = realloc(gc->live, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        gc->live = grown;
        gc->live_room = room;
    }
    struct live *live = &gc->live[gc->live_count];
    live->id = fl_pack_id(pack);
    live->frames = calloc(fl_pack_frames(pack) / 64 + 1, sizeof(uint64_t));
    if (!live->frames)
        return -ENOMEM;
    gc->live_count++;
    *ret_live = live;
    return 0;
}

static int mark_packs(struct gc *gc, const struct fl_image *image, uint64_t **ret_bitmaps)
{
    for (uint32_t i = 0; i < image->header.packs; i++) {
        struct live *live = find_live(gc, fl_pack_id(image->packs[i]));
        int r = live ? 0 : add_live(gc, image->packs[i], &live);
        if (r < 0)
            return r;
        ret_bitmaps[i] = live->frames;
    }
    return 0;
}

static void mark_frames(const struct fl_image *image, uint64_t **bitmaps)
{
    uint64_t pages = image->entries;
    for (uint64_t page = 0; (page = fl_image_skip_zero(image, page)) < pages; page++) {
        uint64_t entry = fl_image_entry(image, page);
        if (entry == 0)
            continue;
        uint32_t frame = fl_entry_frame(entry);
        bitmaps[fl_entry_pack(entry)][frame / 64] |= UINT64_C(1) << frame % 64;
    }
}

// An image that cannot be read might need any pack: then no pack may be removed.
static int mark_image(void *arg, const char *name)
{
    struct gc *gc = arg;
    struct fl_image *image;
    struct fl_blame blame;
    int r = fl_image_open(gc->store->reader, name, &image);
    if (r == -ENOENT) // removed a moment ago
        return 0;
    if (r < 0)
        return fl_fail_plain(gc->error, r,
                             "image '%s' cannot be read, so it is not known which packs it needs "
                             "and nothing was collected (remove it to go on): %s",
                             name, fl_image_blame(gc->store, name, r, &blame));
    uint64_t **bitmaps = calloc(image->header.packs + 1, sizeof(*bitmaps));
    r = bitmaps ? mark_packs(gc, image, bitmaps) : -ENOMEM;
    if (r == 0)
        mark_frames(image, bitmaps);
    free(bitmaps);
    fl_image_unref(image);
    return r < 0 ? fl_fail(gc->error, r, "cannot collect the store %s", gc->store->dir) : 0;
}

// Keeps the first error of the index.
static void index_result(struct gc *gc, int r)
{
    if (r >= 0 || gc->result.index_not_updated)
        return;
    gc->result.index_not_updated = true;
    gc->result.index_error = r;
}

static uint64_t file_bytes(int dir_fd, const char *name)
{
    struct stat st;
    return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_size : 0;
}

// If the index cannot be opened, for example for want of space, gc goes on: it makes space.
static void open_index(struct gc *gc)
{
    int r = gc->options->rebuild_index ? fl_index_clear(gc->store->index_dir) : 0;
    gc->result.index_rebuilt = gc->options->rebuild_index && r == 0;
    if (r == 0)
        r = fl_index_open(gc->store->index_dir, &gc->index);
    if (r == -EBADMSG) // sweeping fills it
        r = fl_index_clear(gc->store->index_dir);
    if (r == 0 && !gc->index) {
        gc->result.index_rebuilt = true;
        r = fl_index_open(gc->store->index_dir, &gc->index);
    }
    index_result(gc, r);
}

static bool knows_pack(struct gc *gc, uint64_t id)
{
    int known = fl_index_has_pack(gc->index, id);
    index_result(gc, known);
    return known == 1;
}

// Removes the pack's entries first. A pack that cannot be opened keeps its entries: they are misses
// once the pack is gone.
static void forget_pack(struct gc *gc, uint64_t id)
{
    struct fl_pack *pack;
    if (!gc->index || fl_pack_open(gc->store->reader->registry, id, &pack) < 0)
        return;
    if (fl_pack_know_all(pack) == 0 && knows_pack(gc, id))
        index_result(gc, fl_index_remove_pack(gc->index, pack));
    fl_pack_unref(pack);
}

static int remove_pack(struct gc *gc, uint64_t id)
{
    char name[FL_PACK_NAME_BYTES];
    fl_pack_name(id, name);
    uint64_t bytes = file_bytes(gc->store->packs_fd, name);
    if (!gc->options->dry_run) {
        forget_pack(gc, id);
        if (unlinkat(gc->store->packs_fd, name, 0) < 0)
            return fl_fail(gc->error, -errno, "cannot remove the pack %s", name);
    }
    gc->result.packs_removed++;
    gc->result.bytes_freed += bytes;
    return 0;
}

static void keep_pack(struct gc *gc, const struct live *live)
{
    struct fl_pack *pack;
    if (fl_pack_open(gc->store->reader->registry, live->id, &pack) < 0)
        return; // it was open a moment ago, so it is being damaged now: verify will report it
    bool whole = fl_pack_know_all(pack) == 0; // if not, verify will report it, too
    for (uint32_t frame = 0; whole && frame < fl_pack_frames(pack); frame++) {
        if (!(live->frames[frame / 64] >> frame % 64 & 1))
            gc->result.dead_bytes += fl_pack_frame_stored(pack, frame);
    }
    if (whole && gc->index && !knows_pack(gc, live->id)) {
        int r = fl_index_add_pack(gc->index, pack, FL_INDEX_KEEP_KNOWN);
        gc->result.packs_indexed += r == 0;
        index_result(gc, r);
    }
    gc->result.packs_kept++;
    fl_pack_unref(pack);
}

// Entries for removed packs in the list of bad frames have no use any more. If the list cannot be
// written, verify corrects it.
static void forget_bad(struct gc *gc, const struct fl_pack_ids *ids)
{
    struct fl_pack_ids gone = {.ids = NULL};
    int r = 0;
    for (size_t i = 0; r == 0 && i < ids->count; i++)
        r = find_live(gc, ids->ids[i]) ? 0 : fl_pack_ids_add(&gone, ids->ids[i]);
    if (r == 0 && gone.count > 0)
        fl_bad_list_change(gc->store, &(struct fl_bad_change){.forget_packs = gone.ids,
                                                              .forget_count = gone.count});
    free(gone.ids);
}

static int sweep_packs(struct gc *gc)
{
    struct fl_pack_ids ids = {.ids = NULL};
    int r = fl_pack_ids_list(gc->store->packs_fd, &ids);
    if (r < 0)
        r = fl_fail(gc->error, r, "cannot list the packs of the store %s", gc->store->dir);
    for (size_t i = 0; r == 0 && i < ids.count; i++) {
        const struct live *live = find_live(gc, ids.ids[i]);
        if (live)
            keep_pack(gc, live);
        else
            r = remove_pack(gc, ids.ids[i]);
        if (r == 0 && fl_progress_call(&gc->options->progress, i + 1, ids.count) < 0)
            r = fl_fail_plain(gc->error, -ECANCELED, "interrupted; run it again for the rest");
    }
    if (r == 0 && !gc->options->dry_run)
        forget_bad(gc, &ids);
    free(ids.ids);
    if (r == 0 && !gc->options->dry_run)
        r = fl_sync_dir(gc->store->packs_fd);
    return r;
}

static int sweep_temporary(void *arg, const char *name)
{
    struct gc *gc = arg;
    uint64_t bytes = file_bytes(gc->store->tmp_fd, name);
    if (!gc->options->dry_run && unlinkat(gc->store->tmp_fd, name, 0) < 0)
        return fl_fail(gc->error, -errno, "cannot remove the temporary file %s", name);
    gc->result.temporaries_removed++;
    gc->result.bytes_freed += bytes;
    return 0;
}

// An image on offer whose process was killed.
static int sweep_offer(void *arg, const char *name)
{
    struct gc *gc = arg;
    int images_fd = gc->store->reader->images_fd;
    uint64_t bytes = file_bytes(images_fd, name);
    if (gc->options->dry_run ? !fl_offer_is_left(images_fd, name)
                             : !fl_offer_remove_left(images_fd, name))
        return 0;
    gc->result.temporaries_removed++;
    gc->result.bytes_freed += bytes;
    return 0;
}

// A trace has no use any more once its image is gone or has other content. A trace that cannot be
// read stays: verify reports it.
static bool trace_useless(struct gc *gc, const char *name)
{
    char file_name[FL_IMAGE_NAME_BYTES];
    struct fl_disk_image_header image;
    struct fl_disk_trace_header trace;
    if (fl_image_file_name(name, file_name) < 0)
        return false;
    FL_AUTO_CLOSE int fd = openat(gc->store->reader->images_fd, file_name,
                                  O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT;
    return fl_image_file_header(fd, name, &image) == 0 &&
           fl_trace_check(gc->store, &image, &trace) == -ESTALE;
}

static int sweep_trace(void *arg, const char *name)
{
    struct gc *gc = arg;
    char file_name[sizeof(FL_TRACE_DIR) + FL_TRACE_NAME_BYTES] = FL_TRACE_DIR "/";
    if (!trace_useless(gc, name))
        return 0;
    fl_trace_file_name(name, file_name + sizeof(FL_TRACE_DIR));
    uint64_t bytes = file_bytes(gc->store->reader->dir_fd, file_name);
    int r = gc->options->dry_run ? 0 : fl_trace_remove(gc->store, name);
    if (r == -ENOENT) // another process has removed the image, which needs no lock of the store
        return 0;
    if (r < 0)
        return fl_fail(gc->error, r, "cannot remove the trace of image '%s'", name);
    gc->result.traces_removed++;
    gc->result.bytes_freed += bytes;
    return 0;
}

// Builds the index again if it turned out to be damaged on the way.
static void rebuild_index(struct gc *gc)
{
    fl_index_close(gc->index);
    gc->index = NULL;
    int r = fl_index_rebuild(gc->store, &gc->index);
    gc->result.index_rebuilt |= r == 0;
    gc->result.index_error = r;
    gc->result.index_not_updated = r < 0;
}

static int collect(struct gc *gc)
{
    // Before the images are read: what is in tmp/ needs no knowledge of them.
    int r = fl_each_file(gc->store->tmp_fd, sweep_temporary, gc);
    if (r == 0)
        r = fl_each_file(gc->store->reader->images_fd, sweep_offer, gc);
    if (r == 0)
        r = fl_reader_list(gc->store->reader, mark_image, gc);
    if (r == 0)
        r = fl_trace_each(gc->store, sweep_trace, gc);
    if (r < 0)
        return r;
    if (!gc->options->dry_run)
        open_index(gc);
    r = sweep_packs(gc);
    if (gc->result.index_error == -EBADMSG)
        rebuild_index(gc);
    return r;
}

int fl_store_gc(struct fl_store *store, const struct fl_gc_options *options,
                struct fl_gc_result *ret_result, struct fl_error *ret_error)
{
    struct gc gc = {.store = store, .options = options, .error = ret_error};
    int r = fl_store_lock(store, FL_LOCK_EXCLUSIVE, ret_error);
    if (r < 0)
        return r;
    r = collect(&gc);
    if (r == 0)
        *ret_result = gc.result;
    fl_index_close(gc.index);
    for (size_t i = 0; i < gc.live_count; i++)
        free(gc.live[i].frames);
    free(gc.live);
    fl_store_unlock(store);
    return r;
}
