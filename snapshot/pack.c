// SPDX-License-Identifier: Apache-2.0
//
// Packs a memory file: opens the input, runs the stages (pack_run.c), publishes the pack and then
// the image, and adds the pack to the index. A kill leaves at most a pack that no image refers to.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "snapshot/bad_list.h"
#include "snapshot/image_file.h"
#include "snapshot/io.h"
#include "snapshot/pack_heal.h"
#include "snapshot/pack_name.h"
#include "snapshot/pack_run.h"
#include "snapshot/pipeline.h"
#include "snapshot/store_dir.h"

struct job {
    struct fl_store *store;
    const struct fl_pack_options *options;
    struct fl_error *error;
    struct stat input_stat;
    struct fl_pack_run run;
    struct fl_index *index;     // NULL: cannot be used
    struct fl_bad_frames known; // frames that were known to be bad when this run began
    struct fl_pack_result result;
};

// The caller closes *ret_fd in every case.
static int open_memory(const char *path, int *ret_fd, struct stat *ret_stat,
                       struct fl_error *ret_error)
{
    // Non-blocking, so that naming a FIFO by mistake is an error and not a wait.
    *ret_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*ret_fd < 0)
        return fl_fail(ret_error, -errno, "cannot open the memory file %s", path);
    if (fstat(*ret_fd, ret_stat) < 0)
        return fl_fail(ret_error, -errno, "cannot read the memory file %s", path);
    if (!S_ISREG(ret_stat->st_mode))
        return fl_fail_plain(ret_error, -EINVAL, "the memory file %s is not a regular file", path);
    if (ret_stat->st_size == 0)
        return fl_fail_plain(ret_error, -ENODATA, "the memory file %s is empty", path);
    return 0;
}

int fl_pack_check_input(const char *path, struct fl_error *ret_error)
{
    struct stat status;
    FL_AUTO_CLOSE int fd = -1;
    return open_memory(path, &fd, &status, ret_error);
}

static int open_input(struct job *job)
{
    int *fd = &job->run.input_fd;
    int r = open_memory(job->options->path, fd, &job->input_stat, job->error);
    if (r < 0)
        return r;
    job->run.input_bytes = (uint64_t)job->input_stat.st_size;
    job->run.input_pages = (job->run.input_bytes + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE;
    posix_fadvise(*fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return 0;
}

static int exists_error(struct job *job)
{
    return fl_fail_plain(job->error, -EEXIST,
                         "the store %s has an image '%s' already (--replace replaces it)",
                         job->store->dir, job->options->name);
}

static int check_name(struct job *job)
{
    char file_name[FL_IMAGE_NAME_BYTES];
    if (fl_image_file_name(job->options->name, file_name) < 0)
        return fl_fail_plain(job->error, -EINVAL,
                             "'%s' cannot name an image: 1 to %u of A-Z a-z 0-9 . _ - and not "
                             "starting with '.' or '-'",
                             job->options->name, FL_NAME_MAX);
    if (!job->options->replace &&
        faccessat(job->store->reader->images_fd, file_name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return exists_error(job);
    return 0;
}

static void close_views(struct job *job)
{
    for (unsigned i = 0; i < job->run.threads; i++) {
        fl_index_view_close(job->run.workers[i].view);
        job->run.workers[i].view = NULL;
    }
}

static int open_worker(struct fl_pack_worker *worker)
{
    worker->room = fl_map_memory(sizeof(*worker->room));
    return worker->room ? fl_hasher_new(&worker->hasher) : -ENOMEM;
}

static int open_workers(struct job *job)
{
    struct fl_pack_run *run = &job->run;
    run->threads = fl_threads(job->options->threads);
    run->workers = calloc(run->threads, sizeof(*run->workers));
    int r = run->workers ? 0 : -ENOMEM;
    for (unsigned i = 0; r == 0 && i < run->threads; i++)
        r = open_worker(&run->workers[i]);
    return r;
}

// All threads have a view, or none has: otherwise it would be chance which pages are shared.
static void open_index(struct job *job)
{
    int r = fl_index_open_or_rebuild(job->store, &job->index, &job->result.index_rebuilt);
    for (unsigned i = 0; r == 0 && i < job->run.threads; i++)
        r = fl_index_view_open(job->index, &job->run.workers[i].view);
    if (r == 0)
        return;
    close_views(job);
    fl_index_close(job->index);
    job->index = NULL;
    job->result.index_damaged = true;
    job->result.index_error = r;
}

static int begin_writing(struct job *job)
{
    struct fl_pack_run *run = &job->run;
    struct fl_store *store = job->store;
    int r = open_workers(job);
    if (r == 0)
        r = fl_hasher_new(&run->content);
    if (r == 0)
        r = fl_pack_writer_new(store->tmp_fd, &run->pack);
    if (r == 0)
        r = fl_image_writer_new(store->tmp_fd, &run->image);
    if (r == 0)
        r = fl_dedup_new(store->reader->registry, fl_pack_writer_id(run->pack), run->input_pages,
                         &run->dedup);
    if (r == 0)
        r = fl_bad_list_load(store, FL_BAD_ALL, &job->known);
    if (r == 0)
        r = fl_share_check_new(store, &job->known, job->options->trust_store, &run->check);
    if (r < 0)
        return fl_fail(job->error, r, "cannot begin to write to the store %s", store->dir);
    open_index(job);
    return 0;
}

// A torn snapshot has no use: a file that was written to meanwhile is refused.
static int check_unchanged(struct job *job)
{
    struct stat now;
    const struct stat *then = &job->input_stat;
    const char *path = job->options->path;
    if (fstat(job->run.input_fd, &now) < 0)
        return fl_fail(job->error, -errno, "cannot read the memory file %s", path);
    if (now.st_size < then->st_size)
        return fl_fail_plain(job->error, -ENODATA, "the memory file %s shrank while it was read",
                             path);
    if (now.st_size > then->st_size || now.st_mtim.tv_sec != then->st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != then->st_mtim.tv_nsec)
        return fl_fail_plain(job->error, -EBUSY,
                             "the memory file %s was written to while it was read", path);
    return 0;
}

static int run_failed(struct job *job, int error)
{
    const char *path = job->options->path;
    if (error == -ECANCELED)
        return fl_fail_plain(job->error, error, "interrupted; nothing was added to the store");
    if (job->run.fault == FL_FAULT_SHRANK)
        return fl_fail_plain(job->error, error, "the memory file %s shrank while it was read",
                             path);
    if (job->run.fault == FL_FAULT_INPUT)
        return fl_fail(job->error, error, "cannot read the memory file %s", path);
    if (job->run.fault == FL_FAULT_OUTPUT)
        return fl_fail(job->error, error, "cannot write to the store %s", job->store->dir);
    return fl_fail(job->error, error, "cannot pack the memory file %s", path);
}

static void fill_header(struct job *job, struct fl_disk_image_header *header)
{
    struct fl_dedup_counts counts = fl_dedup_counts(job->run.dedup);
    *header = (struct fl_disk_image_header){
        .bytes = job->run.input_bytes,
        .pages = job->run.input_pages,
        .created = (uint64_t)time(NULL),
        .zero_pages = counts.zero,
        .stored_pages = counts.stored,
        .duplicate_pages = counts.duplicate,
        .shared_pages = counts.shared,
        .declined_pages = counts.declined,
    };
    strncpy(header->name, job->options->name, sizeof(header->name) - 1);
}

static int publish_locked(struct job *job, struct fl_disk_image_header *header)
{
    const uint64_t *packs = fl_dedup_packs(job->run.dedup, &header->packs);
    int r = fl_store_lock_names(job->store);
    if (r < 0)
        return r;
    r = fl_image_writer_publish(job->run.image, header, packs, NULL, job->store->reader->images_fd,
                                job->options->replace, &job->result.image_bytes);
    fl_store_unlock_names(job->store);
    return r;
}

static int publish_image(struct job *job)
{
    struct fl_disk_image_header header;
    fill_header(job, &header);
    int r = fl_hash_finish(job->run.content, &header.content_id);
    if (r == 0)
        r = publish_locked(job, &header);
    memcpy(job->result.content_id, header.content_id.bytes, sizeof(job->result.content_id));
    if (r == -EEXIST)
        return exists_error(job);
    return r < 0 ? fl_fail(job->error, r, "cannot write to the store %s", job->store->dir) : 0;
}

// No image can refer to the pack yet: its pages are not in the index.
static void withdraw_pack(struct job *job)
{
    char name[FL_PACK_NAME_BYTES];
    if (job->result.pack_id == 0)
        return;
    fl_pack_name(job->result.pack_id, name);
    unlinkat(job->store->packs_fd, name, 0);
}

// Publishes the pack first, then the image, which refers to it.
static int publish_pack_and_image(struct job *job)
{
    double start = fl_seconds_wall();
    if (fl_pack_writer_frames(job->run.pack) > 0) {
        int r =
            fl_pack_writer_publish(job->run.pack, job->store->packs_fd, &job->result.stored_bytes);
        if (r < 0)
            return fl_fail(job->error, r, "cannot write to the store %s", job->store->dir);
        job->result.pack_id = fl_pack_writer_id(job->run.pack);
    }
    int r = publish_image(job);
    if (r < 0)
        withdraw_pack(job);
    job->run.write_seconds += fl_seconds_wall() - start;
    return r;
}

static int add_to_index(struct job *job)
{
    struct fl_pack *pack;
    if (!job->index)
        return job->result.index_error;
    if (job->run.index_broken)
        return -EBADMSG;
    if (job->result.pack_id == 0)
        return 0;
    int r = fl_pack_open(job->store->reader->registry, job->result.pack_id, &pack);
    if (r < 0)
        return r;
    r = fl_index_add_pack(job->index, pack, FL_INDEX_NEWER);
    fl_pack_unref(pack);
    return r;
}

// The image is published: from here on no error is a failure of packing. An index that turned out
// to be damaged is built again, with this pack.
static void update_index(struct job *job)
{
    double start = fl_seconds_wall();
    close_views(job);
    int r = add_to_index(job);
    job->result.index_damaged |= job->run.index_broken;
    if (r == -EBADMSG) {
        fl_index_close(job->index);
        job->index = NULL;
        r = fl_index_rebuild(job->store, &job->index);
        job->result.index_rebuilt |= r == 0;
    }
    fl_index_close(job->index); // healing opens it again
    job->index = NULL;
    job->result.index_error = r;
    job->result.index_not_updated = r < 0 && job->result.pack_id != 0;
    job->result.index_seconds = fl_seconds_wall() - start;
}

static void end_job(struct job *job)
{
    struct fl_pack_run *run = &job->run;
    if (run->workers)
        close_views(job);
    fl_index_close(job->index);
    for (unsigned i = 0; run->workers && i < run->threads; i++) {
        fl_hasher_free(run->workers[i].hasher);
        fl_unmap(run->workers[i].room, sizeof(*run->workers[i].room));
    }
    free(run->workers);
    fl_hasher_free(run->content);
    fl_dedup_free(run->dedup);
    fl_share_check_free(run->check);
    fl_bad_frames_free(&job->known);
    fl_pack_writer_free(run->pack);
    fl_image_writer_free(run->image);
    fl_cleanup_close(&run->input_fd);
}

static void fill_result(struct job *job, double start)
{
    struct fl_dedup_counts counts = fl_dedup_counts(job->run.dedup);
    struct fl_pack_result *result = &job->result;
    result->input_bytes = job->run.input_bytes;
    result->data_bytes = job->run.data_bytes;
    result->pages = job->run.input_pages;
    result->zero_pages = counts.zero;
    result->duplicate_pages = counts.duplicate;
    result->shared_pages = counts.shared;
    result->stored_pages = counts.stored;
    result->declined_pages = counts.declined;
    result->hash_seconds = job->run.hash_seconds;
    result->check_seconds = job->run.check_seconds;
    result->compress_seconds = job->run.compress_seconds;
    result->write_seconds = job->run.write_seconds;
    result->threads = job->run.threads;
    result->seconds = fl_seconds_wall() - start;
}

// Lists the bad frames, so that no later run shares them, even if this one fails, and repair knows
// them. The image does not need them; without the list they are found again.
static void note_bad_frames(struct job *job)
{
    const struct fl_bad_frames *found;
    fl_share_check_found(job->run.check, &found);
    job->result.bad_frames = found->count;
    if (found->count > 0)
        job->result.bad_not_noted =
            fl_bad_list_change(job->store, &(struct fl_bad_change){.needed = found}) < 0;
}

static int pack_locked(struct job *job)
{
    int r = check_name(job);
    if (r == 0)
        r = begin_writing(job);
    if (r < 0)
        return r;
    r = fl_pack_run(&job->run, &job->options->progress);
    note_bad_frames(job);
    if (r < 0)
        return run_failed(job, r);
    if (fl_progress_call(&job->options->progress, job->run.input_bytes, job->run.input_bytes) < 0)
        return run_failed(job, -ECANCELED);
    r = check_unchanged(job);
    if (r == 0)
        r = publish_pack_and_image(job);
    if (r < 0)
        return r;
    update_index(job);
    uint32_t packs_count;
    const uint64_t *packs = fl_dedup_packs(job->run.dedup, &packs_count);
    fl_pack_heal(job->store, packs, packs_count, &job->result);
    return 0;
}

int fl_store_pack(struct fl_store *store, const struct fl_pack_options *options,
                  struct fl_pack_result *ret_result, struct fl_error *ret_error)
{
    struct job job = {.store = store, .options = options, .error = ret_error};
    double start = fl_seconds_wall();
    job.run.input_fd = -1;
    if (options->live || options->with_count > 0 || options->labels_count > 0)
        return fl_fail_plain(ret_error, -EOPNOTSUPP, "only memory files can be packed");
    int r = open_input(&job);
    if (r == 0)
        r = fl_store_lock(store, FL_LOCK_SHARED, ret_error);
    bool locked = r == 0;
    if (locked)
        r = pack_locked(&job);
    if (r == 0) {
        fill_result(&job, start);
        *ret_result = job.result;
    }
    end_job(&job); // under the lock: without it gc may remove the files in tmp/
    if (locked)
        fl_store_unlock(store);
    return r;
}
