// SPDX-License-Identifier: Apache-2.0
//
// Packs a memory file, or a live source: opens the inputs, runs the stages (pack_run.c), publishes
// the pack and then the image, and adds the pack to the index (pack_publish.c). A kill leaves at
// most a pack that no image refers to.
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
#include "snapshot/pack_input.h"
#include "snapshot/pack_job.h"
#include "snapshot/pipeline.h"
#include "snapshot/store_dir.h"

int fl_pack_check_input(const char *path, struct fl_error *ret_error)
{
    struct stat status;
    FL_AUTO_CLOSE int fd = -1;
    return fl_input_open("memory file", path, &fd, &status, ret_error);
}

static int open_input(struct fl_pack_job *job)
{
    struct fl_pack_run *run = &job->run;
    run->live = job->options->live;
    run->offer = run->live ? job->options->offer : NULL;
    if (run->live) {
        run->input_bytes = run->live->bytes;
        if (run->input_bytes < 1 || run->input_bytes > FL_IMAGE_BYTES_MAX)
            return fl_fail_plain(job->error, -EINVAL, "a VM's memory cannot have %llu bytes",
                                 (unsigned long long)run->input_bytes);
    } else {
        int r = fl_input_open("memory file", job->options->path, &run->input_fd, &job->input_stat,
                              job->error);
        if (r < 0)
            return r;
        run->input_bytes = (uint64_t)job->input_stat.st_size;
        posix_fadvise(run->input_fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    }
    run->input_pages = (run->input_bytes + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE;
    return fl_with_open(job->options, &run->with, job->error);
}

static int check_name(struct fl_pack_job *job)
{
    char file_name[FL_IMAGE_NAME_BYTES];
    if (fl_image_file_name(job->options->name, file_name) < 0)
        return fl_fail_plain(job->error, -EINVAL,
                             "'%s' cannot name an image: 1 to %u of A-Z a-z 0-9 . _ - and not "
                             "starting with '.' or '-'",
                             job->options->name, FL_NAME_MAX);
    if (!job->options->replace &&
        faccessat(job->store->reader->images_fd, file_name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return fl_pack_exists(job);
    return 0;
}

static int open_worker(struct fl_pack_worker *worker, struct fl_compression how, bool parent)
{
    worker->room = fl_map_memory(sizeof(*worker->room));
    worker->identities = parent ? calloc(1, sizeof(*worker->identities)) : NULL;
    if (!worker->room || (parent && !worker->identities))
        return -ENOMEM;
    int r = fl_encoder_new(how, &worker->encoder);
    return r < 0 ? r : fl_hasher_new(&worker->hasher);
}

static int open_workers(struct fl_pack_job *job)
{
    struct fl_pack_run *run = &job->run;
    run->threads = fl_threads(job->options->threads);
    if (run->live) // one waits for pages most of the time
        run->threads = run->threads < FL_THREADS_MAX ? run->threads + 1 : FL_THREADS_MAX;
    run->workers = calloc(run->threads, sizeof(*run->workers));
    int r = run->workers ? 0 : -ENOMEM;
    for (unsigned i = 0; r == 0 && i < run->threads; i++)
        r = open_worker(&run->workers[i], job->options->compression, run->parent != NULL);
    return r;
}

// Each view is a process. Of a live source little is asked for: the threads take turns at one.
static int open_views(struct fl_pack_job *job)
{
    struct fl_pack_run *run = &job->run;
    unsigned wanted = run->live ? 1 : run->threads;
    int r = 0;
    run->views = calloc(wanted, sizeof(struct fl_index_view *));
    if (!run->views)
        return -ENOMEM;
    while (r == 0 && run->views_count < wanted) {
        r = fl_index_view_open(job->index, &run->views[run->views_count]);
        run->views_count += r == 0;
    }
    for (unsigned i = 0; r == 0 && i < run->threads; i++)
        run->workers[i].view = run->views[i % wanted];
    return r;
}

// All threads have a view, or none has: otherwise it would be chance which pages are shared.
static void open_index(struct fl_pack_job *job)
{
    int r = fl_index_open_or_rebuild(job->store, &job->index, &job->result.index_rebuilt);
    if (r == 0)
        r = open_views(job);
    if (r == 0)
        return;
    fl_pack_close_views(job);
    fl_index_close(job->index);
    job->index = NULL;
    job->result.index_damaged = true;
    job->result.index_error = r;
}

static int share_with_parent(struct fl_pack_run *run)
{
    const struct fl_parent *parent = run->parent;
    return parent ? fl_dedup_set_parent(run->dedup, parent->ids, parent->kept,
                                        parent->image->header.packs)
                  : 0;
}

static int begin_writing(struct fl_pack_job *job)
{
    struct fl_pack_run *run = &job->run;
    struct fl_store *store = job->store;
    int r = open_workers(job);
    if (r == 0)
        r = fl_hasher_new(&run->content);
    if (r == 0)
        r = fl_hasher_new(&run->parent_content);
    if (r == 0)
        r = fl_pack_writer_new(store->tmp_fd, &run->pack);
    if (r == 0)
        r = fl_image_writer_new(store->tmp_fd, &run->image);
    if (r == 0)
        r = fl_dedup_new(store->reader->registry, fl_pack_writer_id(run->pack), &run->dedup);
    if (r == 0)
        r = share_with_parent(run);
    if (r == 0 && run->offer)
        r = fl_pack_order_new(run->input_pages, &run->order);
    if (r == 0)
        r = fl_bad_list_load(store, FL_BAD_ALL, &job->known);
    if (r == 0)
        r = fl_share_check_new(store, &job->known, job->options->trust_store, &run->check);
    if (r < 0)
        return fl_fail(job->error, r, "cannot begin to write to the store %s", store->dir);
    open_index(job);
    return 0;
}

static int run_failed(struct fl_pack_job *job, int error)
{
    const char *path = job->options->path;
    const struct fl_pack_live *live = job->options->live;
    if (error == -ECANCELED)
        return fl_fail_plain(job->error, error, "interrupted; nothing was added to the store");
    if (job->run.fault == FL_FAULT_SHRANK)
        return fl_fail_plain(job->error, error, "the memory file %s shrank while it was read",
                             path);
    if (job->run.fault == FL_FAULT_COMPANION)
        return fl_fail(job->error, error, "cannot read the companions of the image");
    if (job->run.fault == FL_FAULT_AWAIT)
        return fl_fail(job->error, error, "the pages of the VM did not come");
    if (job->run.fault == FL_FAULT_PARENT)
        return fl_fail(job->error, error, "cannot take the pages of image '%s'",
                       live->parent ? live->parent : "");
    if (live && job->run.fault == FL_FAULT_INPUT)
        return fl_fail(job->error, error, "cannot read the pages of the VM");
    if (job->run.fault == FL_FAULT_INPUT)
        return fl_fail(job->error, error, "cannot read the memory file %s", path);
    if (job->run.fault == FL_FAULT_OUTPUT)
        return fl_fail(job->error, error, "cannot write to the store %s", job->store->dir);
    return live ? fl_fail(job->error, error, "cannot pack the pages of the VM")
                : fl_fail(job->error, error, "cannot pack the memory file %s", path);
}

static void end_job(struct fl_pack_job *job)
{
    struct fl_pack_run *run = &job->run;
    fl_pack_close_views(job);
    fl_index_close(job->index);
    for (unsigned i = 0; run->workers && i < run->threads; i++) {
        fl_hasher_free(run->workers[i].hasher);
        fl_encoder_free(run->workers[i].encoder);
        fl_unmap(run->workers[i].room, sizeof(*run->workers[i].room));
        free(run->workers[i].identities);
    }
    free(run->workers);
    fl_hasher_free(run->content);
    fl_hasher_free(run->parent_content);
    fl_dedup_free(run->dedup);
    fl_pack_order_free(run->order);
    fl_parent_free(run->parent);
    fl_with_close(&run->with);
    fl_share_check_free(run->check);
    fl_bad_frames_free(&job->known);
    fl_pack_writer_free(run->pack);
    fl_image_writer_free(run->image);
    fl_cleanup_close(&run->input_fd);
}

static void fill_result(struct fl_pack_job *job, double start)
{
    struct fl_dedup_counts counts = job->run.counts;
    struct fl_pack_result *result = &job->result;
    result->input_bytes = job->run.input_bytes;
    result->data_bytes = job->run.data_bytes;
    result->pages = job->run.input_pages;
    result->zero_pages = counts.zero;
    result->duplicate_pages = counts.duplicate;
    result->shared_pages = counts.shared;
    result->inherited_pages = counts.inherited;
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
static void note_bad_frames(struct fl_pack_job *job)
{
    const struct fl_bad_frames *found;
    fl_share_check_found(job->run.check, &found);
    job->result.bad_frames = found->count;
    if (found->count > 0)
        job->result.bad_not_noted =
            fl_bad_list_change(job->store, &(struct fl_bad_change){.needed = found}) < 0;
}

// What was read is what it seemed to be.
static int check_inputs(struct fl_pack_job *job)
{
    struct fl_pack_run *run = &job->run;
    const struct fl_pack_options *options = job->options;
    int r = run->live ? 0
                      : fl_input_unchanged("memory file", options->path, run->input_fd,
                                           &job->input_stat, job->error);
    if (r == 0)
        r = fl_with_unchanged(&run->with, job->error);
    if (r < 0 || !run->parent)
        return r;
    r = fl_parent_check(run->parent, run->input_pages, run->parent_content);
    if (r == -EBADMSG)
        return fl_fail_plain(job->error, r,
                             "image '%s' is damaged: its content id is not that of its pages",
                             options->live->parent);
    return r < 0 ? fl_fail(job->error, r, "cannot read image '%s'", options->live->parent) : 0;
}

static int begin_offer(struct fl_pack_job *job)
{
    struct fl_pack_run *run = &job->run;
    if (!run->offer)
        return 0;
    const struct fl_offer_plan plan = {
        .bytes = run->input_bytes,
        .pack_id = fl_pack_writer_id(run->pack),
        .pack_file = fl_pack_writer_file(run->pack),
        .parent = run->parent ? run->parent->ids : NULL,
        .parent_packs = run->parent ? run->parent->image->header.packs : 0,
        .with = &run->with,
    };
    int r = fl_offer_begin(run->offer, job->store, &plan, job->error);
    if (r == 0 && run->live->offered)
        run->live->offered(run->live->arg);
    return r;
}

static int pack_locked(struct fl_pack_job *job)
{
    const struct fl_pack_live *live = job->options->live;
    int r = check_name(job);
    if (r == 0 && live && live->parent)
        r = fl_parent_open(job->store, live->parent, live->parent_content_id, &job->run.parent,
                           job->error);
    if (r == 0)
        r = begin_writing(job);
    if (r == 0)
        r = begin_offer(job);
    if (r < 0)
        return r;
    r = fl_pack_run(&job->run, &job->options->progress);
    note_bad_frames(job);
    if (r < 0)
        return run_failed(job, r);
    if (fl_progress_call(&job->options->progress, job->run.input_bytes, job->run.input_bytes) < 0)
        return run_failed(job, -ECANCELED);
    r = check_inputs(job);
    if (r == 0)
        r = fl_pack_publish(job);
    if (r < 0)
        return r;
    if (job->run.offer)
        fl_offer_published(job->run.offer, job->options->name, job->result.content_id);
    if (live)
        job->result.settle_seconds = fl_seconds_wall() - job->run.last_page_at;
    fl_pack_inherit_trace(job);
    if (live && live->published)
        live->published(live->arg, job->result.content_id);
    fl_pack_update_index(job);
    uint32_t packs_count;
    const uint64_t *packs = fl_dedup_packs(job->run.dedup, &packs_count);
    fl_pack_heal(job->store, packs, packs_count, &job->result);
    return 0;
}

int fl_store_pack(struct fl_store *store, const struct fl_pack_options *options,
                  struct fl_pack_result *ret_result, struct fl_error *ret_error)
{
    struct fl_pack_job job = {.store = store, .options = options, .error = ret_error};
    double start = fl_seconds_wall();
    job.run.input_fd = -1;
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
