// SPDX-License-Identifier: Apache-2.0
//
// Repairs a store: finds which of the listed bad frames are bad still, then heals images from every
// source there is (heal.h).
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/bad_list.h"
#include "snapshot/heal.h"
#include "snapshot/io.h"
#include "snapshot/pack_list.h"

struct job {
    struct fl_store *store;
    const struct fl_repair_options *options;
    struct fl_error *error;
    struct fl_repair_result result;
    int memory_fd;
    struct fl_store *other;
    struct fl_bad_frames bad;
    struct fl_heal *heal;
};

static int open_sources(struct job *job)
{
    const char *path = job->options->memory_path;
    struct stat st;
    if (path) {
        job->memory_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (job->memory_fd < 0 || fstat(job->memory_fd, &st) < 0)
            return fl_fail(job->error, -errno, "cannot open the memory file %s", path);
        if (!S_ISREG(st.st_mode))
            return fl_fail_plain(job->error, -EINVAL, "the memory file %s is not a regular file",
                                 path);
    }
    if (job->options->store_dir)
        return fl_store_open(job->options->store_dir, false, &job->other, job->error);
    return 0;
}

// Returns false if the frame's bytes and the identities of its pages are right.
static bool frame_is_bad(const struct fl_pack *pack, uint32_t frame, struct fl_hasher *hasher,
                         uint8_t *room)
{
    struct fl_identity recorded[FL_FRAME_PAGES_MAX];
    struct fl_identity identity;
    uint32_t pages = fl_pack_frame_pages(pack, frame);
    if (fl_pack_read_frame(pack, frame, room) < 0 ||
        fl_pack_read_identities(pack, frame, 0, pages, recorded) < 0)
        return true;
    for (uint32_t slot = 0; slot < pages; slot++) {
        if (fl_hash_page(hasher, room + (size_t)slot * FL_PAGE_SIZE, &identity) < 0 ||
            memcmp(&identity, &recorded[slot], sizeof(identity)) != 0)
            return true;
    }
    return false;
}

static int check_frame(struct job *job, struct fl_frame_id id, struct fl_hasher *hasher,
                       uint8_t *room)
{
    struct fl_pack *pack;
    int r = fl_pack_open(job->store->reader->registry, id.pack, &pack);
    if (r == -ENOENT) // collected
        return 0;
    if (r < 0) // all of it is bad: images that need it cannot be opened
        return fl_bad_frames_add(&job->bad, id);
    bool bad = id.frame < fl_pack_frames(pack) && frame_is_bad(pack, id.frame, hasher, room);
    fl_pack_unref(pack);
    return bad ? fl_bad_frames_add(&job->bad, id) : 0;
}

static int check_frames(struct job *job, const struct fl_bad_frames *listed,
                        struct fl_pack_ids *packs)
{
    struct fl_hasher *hasher = NULL;
    FL_AUTO_FREE uint8_t *room = malloc((size_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE);
    int r = room ? fl_hasher_new(&hasher) : -ENOMEM;
    for (size_t i = 0; r == 0 && i < listed->count; i++) {
        r = check_frame(job, listed->ids[i], hasher, room);
        if (r == 0 && (i == 0 || listed->ids[i].pack != listed->ids[i - 1].pack))
            r = fl_pack_ids_add(packs, listed->ids[i].pack);
        if (r == 0)
            r = fl_progress_call(&job->options->progress, i + 1, listed->count);
    }
    fl_hasher_free(hasher);
    return r;
}

// Finds the frames that are bad still, and removes from the list those that are good now or gone.
static int load_bad(struct job *job)
{
    struct fl_bad_frames listed = {.ids = NULL};
    struct fl_pack_ids packs = {.ids = NULL};
    int r = fl_bad_list_load(job->store, FL_BAD_ALL, &listed);
    if (r == 0)
        r = check_frames(job, &listed, &packs);
    job->result.bad_frames = job->bad.count;
    if (r == 0 && !job->options->dry_run) {
        struct fl_bad_change change = {
            .forget_packs = packs.ids, .forget_count = packs.count, .needed = &job->bad};
        job->result.list_not_written = fl_bad_list_change(job->store, &change) < 0;
    }
    fl_bad_frames_free(&listed);
    free(packs.ids);
    return r;
}

// Looks in the nearest source first.
static int search_sources(struct job *job)
{
    struct fl_heal *heal = job->heal;
    int r = fl_heal_from_frames(heal);
    if (r == 0)
        r = fl_heal_from_packs(heal, job->store->reader->registry, job->store->packs_fd);
    if (r == 0 && job->memory_fd >= 0)
        r = fl_heal_from_memory(heal, job->memory_fd);
    if (r == 0 && job->other)
        r = fl_heal_from_packs(heal, job->other->reader->registry, job->other->packs_fd);
    return r;
}

static void tell_images(struct job *job)
{
    struct fl_heal *heal = job->heal;
    for (size_t i = 0; i < heal->images_count; i++) {
        const struct fl_heal_image *image = &heal->images[i];
        struct fl_blame blame;
        struct fl_repair_image told = {
            .name = image->name, .bad_pages = image->bad_pages, .left = image->left};
        if (image->error < 0)
            told.problem = image->bad_pages > 0
                               ? strerror(-image->error)
                               : fl_image_blame(job->store, image->name, image->error, &blame);
        job->result.images++;
        job->result.images_left += image->left > 0 || image->error < 0;
        if (job->options->image)
            job->options->image(job->options->image_arg, &told);
    }
}

static int heal(struct job *job)
{
    int r = fl_heal_new(job->store, &job->bad, job->options->dry_run, &job->options->progress,
                        &job->heal);
    if (r == 0)
        r = search_sources(job);
    if (r == 0)
        r = fl_heal_publish(job->heal);
    if (!job->heal)
        return r;
    if (!job->options->dry_run && fl_heal_note(job->heal) < 0)
        job->result.list_not_written = true;
    job->result.wanted_pages = job->heal->count;
    job->result.found_pages = job->heal->count - job->heal->missing;
    job->result.stored_bytes = job->heal->pack_id ? job->heal->stored_bytes : 0;
    job->result.pack_id = job->heal->pack_id;
    job->result.index_error = job->heal->index_error;
    job->result.index_not_updated = job->heal->index_error < 0;
    job->result.index_rebuilt = job->heal->index_rebuilt;
    if (r == 0)
        tell_images(job);
    return r;
}

static int repair_failed(struct job *job, int error)
{
    uint64_t healed = job->heal ? job->heal->images_healed : 0;
    if (error == -ECANCELED)
        return fl_fail_plain(job->error, error, "interrupted; no image was changed");
    return fl_fail(job->error, error, "cannot repair the store %s (%llu image%s healed before)",
                   job->store->dir, (unsigned long long)healed, healed == 1 ? "" : "s");
}

static int repair_locked(struct job *job)
{
    int r = load_bad(job);
    if (r == 0)
        r = heal(job);
    return r < 0 ? repair_failed(job, r) : 0;
}

int fl_store_repair(struct fl_store *store, const struct fl_repair_options *options,
                    struct fl_repair_result *ret_result, struct fl_error *ret_error)
{
    struct job job = {.store = store, .options = options, .error = ret_error, .memory_fd = -1};
    double start = fl_seconds_wall();
    int r = open_sources(&job);
    if (r == 0)
        r = fl_store_lock(store, FL_LOCK_SHARED, ret_error);
    bool locked = r == 0;
    if (locked)
        r = repair_locked(&job);
    if (r == 0) {
        job.result.seconds = fl_seconds_wall() - start;
        *ret_result = job.result;
    }
    fl_heal_free(job.heal); // under the lock: without it gc may remove the files in tmp/
    if (locked)
        fl_store_unlock(store);
    fl_bad_frames_free(&job.bad);
    fl_store_close(job.other);
    fl_cleanup_close(&job.memory_fd);
    return r;
}
