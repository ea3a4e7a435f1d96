// SPDX-License-Identifier: Apache-2.0
//
// Unpacks an image: writes ranges of 2 MiB in parallel into a sparse file beside its final name.
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/companion.h"
#include "snapshot/format.h"
#include "snapshot/io.h"
#include "snapshot/offer_unpack.h"
#include "snapshot/output.h"
#include "snapshot/pipeline.h"
#include "snapshot/store_dir.h"

#define RANGE_PAGES 512u
// A thread keeps so many frames, because pages of one frame need not be neighbours in the image. A
// range seldom refers to more.
#define KEPT 64u

struct kept {
    struct fl_frame_id id; // pack 0: empty
    void *pages;
    size_t room;
};

struct worker {
    struct kept kept[KEPT];
    unsigned next;  // the one that is given up next
    uint8_t *range; // RANGE_PAGES: what will be written at once
};

struct unpack {
    struct fl_image *image;
    int fd;
    uint64_t ranges;
    uint64_t next;
    struct worker *workers;
    atomic_uint_fast64_t done;
    atomic_uint_fast64_t data_bytes;
    atomic_bool output_failed;
};

static int next_range(void *arg, void *item, unsigned thread)
{
    (void)thread;
    struct unpack *unpack = arg;
    uint64_t *range = item;
    if (unpack->next == unpack->ranges)
        return 0;
    *range = unpack->next++;
    return 1;
}

static const uint8_t *find_kept(const struct worker *worker, struct fl_frame_id id)
{
    for (unsigned i = 0; i < KEPT; i++) {
        const struct kept *at = &worker->kept[i];
        if (at->id.pack == id.pack && at->id.frame == id.frame)
            return at->pages;
    }
    return NULL;
}

static int keep_frame(const struct unpack *unpack, struct worker *worker, struct fl_frame_id id,
                      const uint8_t **ret_pages)
{
    struct kept *kept = &worker->kept[worker->next++ % KEPT];
    kept->id.pack = 0;
    size_t bytes = (size_t)fl_frame_pages(unpack->image, id) * FL_PAGE_SIZE;
    if (kept->room < bytes) {
        void *pages = realloc(kept->pages, bytes);
        if (!pages)
            return -ENOMEM;
        kept->pages = pages;
        kept->room = bytes;
    }
    int r = fl_frame_read(unpack->image, id, kept->pages);
    if (r < 0)
        return r;
    kept->id = id;
    *ret_pages = kept->pages;
    return 0;
}

// Most frames are needed once, as a whole, and go where they belong at once.
static int read_run(const struct unpack *unpack, struct worker *worker, const struct fl_run *run,
                    uint8_t *at)
{
    const uint8_t *pages = find_kept(worker, run->id);
    if (!pages && run->slot == 0 && run->pages == fl_frame_pages(unpack->image, run->id))
        return fl_frame_read(unpack->image, run->id, at);
    int r = pages ? 0 : keep_frame(unpack, worker, run->id, &pages);
    if (r == 0)
        memcpy(at, pages + (size_t)run->slot * FL_PAGE_SIZE, (size_t)run->pages * FL_PAGE_SIZE);
    return r;
}

static int write_pages(struct unpack *unpack, const uint8_t *at, uint64_t page, uint64_t pages)
{
    uint64_t offset = page * FL_PAGE_SIZE;
    uint64_t left = fl_image_bytes(unpack->image) - offset;
    size_t len = (size_t)pages * FL_PAGE_SIZE;
    if (pages == 0)
        return 0;
    if (len > left) // the last page may be partial
        len = (size_t)left;
    int r = fl_pwrite_full(unpack->fd, at, len, offset);
    if (r < 0)
        atomic_store(&unpack->output_failed, true);
    atomic_fetch_add(&unpack->data_bytes, len);
    return r;
}

// Zero pages stay holes; what is between two of them is written at once.
static int write_range(void *arg, void *item, unsigned thread)
{
    struct unpack *unpack = arg;
    struct worker *worker = &unpack->workers[thread];
    const uint64_t first = *(uint64_t *)item * RANGE_PAGES;
    uint64_t left = fl_image_pages(unpack->image) - first;
    uint64_t end = first + (left < RANGE_PAGES ? left : RANGE_PAGES);
    uint64_t begun = first; // from here on there are bytes that were not written yet
    int r = 0;
    for (uint64_t page = first; r == 0 && page < end;) {
        struct fl_run run = fl_image_run(unpack->image, page, (uint32_t)(end - page));
        if (run.zero) {
            r = write_pages(unpack, worker->range + (begun - first) * FL_PAGE_SIZE, begun,
                            page - begun);
            begun = page + run.pages;
        } else {
            r = read_run(unpack, worker, &run, worker->range + (page - first) * FL_PAGE_SIZE);
        }
        page += run.pages;
    }
    if (r == 0 && begun < end)
        r = write_pages(unpack, worker->range + (begun - first) * FL_PAGE_SIZE, begun, end - begun);
    atomic_fetch_add(&unpack->done, (uint64_t)RANGE_PAGES * FL_PAGE_SIZE);
    return r;
}

static uint64_t done(void *arg)
{
    struct unpack *unpack = arg;
    uint64_t bytes = atomic_load(&unpack->done);
    uint64_t total = fl_image_bytes(unpack->image);
    return bytes < total ? bytes : total;
}

static int run_ranges(struct unpack *unpack, unsigned threads, const struct fl_progress *progress)
{
    static const struct fl_stage stages[] = {{next_range, true}, {write_range, false}};
    unsigned count = 2 * threads;
    FL_AUTO_FREE uint64_t *ranges = calloc(count, sizeof(*ranges));
    FL_AUTO_FREE void **items = calloc(count, sizeof(*items));
    if (!ranges || !items)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++)
        items[i] = &ranges[i];
    struct fl_pipeline pipeline = {
        .stages = stages,
        .stages_count = 2,
        .items = items,
        .items_count = count,
        .threads = threads,
        .arg = unpack,
        .done = done,
        .total = fl_image_bytes(unpack->image),
        .progress = progress,
    };
    return fl_pipeline_run(&pipeline);
}

static void free_workers(struct worker *workers, unsigned threads)
{
    for (unsigned i = 0; workers && i < threads; i++) {
        fl_unmap(workers[i].range, (size_t)RANGE_PAGES * FL_PAGE_SIZE);
        for (unsigned j = 0; j < KEPT; j++)
            free(workers[i].kept[j].pages);
    }
    free(workers);
}

static struct worker *make_workers(unsigned threads)
{
    struct worker *workers = calloc(threads, sizeof(*workers));
    for (unsigned i = 0; workers && i < threads; i++) {
        workers[i].range = fl_map_memory((size_t)RANGE_PAGES * FL_PAGE_SIZE);
        if (!workers[i].range) {
            free_workers(workers, threads);
            return NULL;
        }
    }
    return workers;
}

static int fill_file(struct unpack *unpack, const struct fl_unpack_options *options)
{
    unsigned threads = fl_threads(options->threads);
    uint64_t bytes = fl_image_bytes(unpack->image);
    unpack->ranges = (fl_image_pages(unpack->image) + RANGE_PAGES - 1) / RANGE_PAGES;
    if (ftruncate(unpack->fd, (off_t)bytes) < 0) {
        unpack->output_failed = true;
        return -errno;
    }
    unpack->workers = make_workers(threads);
    int r = unpack->workers ? run_ranges(unpack, threads, &options->progress) : -ENOMEM;
    free_workers(unpack->workers, threads);
    return r == 0 ? fl_progress_call(&options->progress, bytes, bytes) : r;
}

static int output_failed(const char *path, int error, struct fl_error *ret_error)
{
    if (error == -EEXIST)
        return fl_fail_plain(ret_error, error, "%s exists already (--force replaces it)", path);
    return fl_fail_plain(ret_error, error, "cannot write %s: %s", path, fl_output_strerror(error));
}

static int explain(const struct unpack *unpack, const struct fl_unpack_options *options, int error,
                   struct fl_error *ret_error)
{
    if (error == -ECANCELED)
        return fl_fail_plain(ret_error, error, "interrupted; %s was not written", options->path);
    if (unpack->output_failed)
        return output_failed(options->path, error, ret_error);
    return fl_fail(ret_error, error, "cannot read image '%s'", options->name);
}

static int write_output(struct unpack *unpack, const struct fl_unpack_options *options,
                        struct fl_error *ret_error)
{
    struct fl_output output;
    int r = fl_output_open(options->path, options->force, &output);
    unpack->output_failed = r < 0;
    unpack->fd = output.temp.fd;
    if (r == 0)
        r = fill_file(unpack, options);
    if (r == 0) {
        r = fl_output_publish(&output);
        unpack->output_failed = r < 0;
    }
    fl_output_close(&output);
    return r < 0 ? explain(unpack, options, r, ret_error) : 0;
}

static int write_companion(const struct unpack *unpack, const struct fl_unpack_options *options,
                           const struct fl_image_tail *tail, uint32_t number, const char *path,
                           struct fl_error *ret_error)
{
    struct fl_output output;
    bool failed = true;
    int r = fl_output_open(path, options->force, &output);
    if (r == 0) {
        failed = false;
        r = fl_companion_write(unpack->image, tail, number, output.temp.fd, &failed);
    }
    if (r == 0) {
        r = fl_output_publish(&output);
        failed = r < 0;
    }
    fl_output_close(&output);
    if (r < 0 && failed)
        return output_failed(path, r, ret_error);
    return r < 0 ? fl_fail(ret_error, r, "cannot read companion '%s' of image '%s'",
                           fl_image_tail_companions(tail)[number].name, options->name)
                 : 0;
}

static int find_companion(const struct fl_image_about *about, const char *name,
                          const struct fl_unpack_options *options, uint32_t *ret_number,
                          struct fl_error *ret_error)
{
    for (uint32_t i = 0; i < about->companions_count; i++) {
        *ret_number = i;
        if (strcmp(about->companions[i].name, name) == 0)
            return 0;
    }
    return fl_fail_plain(ret_error, -ENOENT, "image '%s' has no companion '%s'", options->name,
                         name);
}

// Looks for all of them before it writes the first.
static int write_companions(const struct unpack *unpack, const struct fl_unpack_options *options,
                            struct fl_error *ret_error)
{
    struct fl_image_tail tail = {.about = NULL};
    struct fl_image_about about = {.companions = NULL};
    uint32_t number = 0;
    if (options->with_count == 0)
        return 0;
    int r = fl_image_tail_read(unpack->image, &tail);
    if (r == 0)
        r = fl_image_tail_tell(&tail, &about);
    if (r < 0)
        r = fl_fail(ret_error, r, "cannot read the companions of image '%s'", options->name);
    for (size_t i = 0; r == 0 && i < options->with_count; i++)
        r = find_companion(&about, options->with[i].name, options, &number, ret_error);
    for (size_t i = 0; r == 0 && i < options->with_count; i++) {
        r = find_companion(&about, options->with[i].name, options, &number, ret_error);
        if (r == 0)
            r = write_companion(unpack, options, &tail, number, options->with[i].path, ret_error);
    }
    fl_image_about_free(&about);
    fl_image_tail_free(&tail);
    return r;
}

int fl_store_unpack(struct fl_store *store, const struct fl_unpack_options *options,
                    struct fl_unpack_result *ret_result, struct fl_error *ret_error)
{
    struct unpack unpack = {.fd = -1};
    double start = fl_seconds_wall();
    int r = fl_image_open(store->reader, options->name, &unpack.image);
    if (r == -ENOENT && fl_offer_unpack(store, options, ret_result, ret_error, &r))
        return r;
    if (r < 0)
        return fl_image_failed(store, options->name, r, ret_error);
    r = write_companions(&unpack, options, ret_error);
    if (r == 0 && options->path)
        r = write_output(&unpack, options, ret_error);
    if (r == 0)
        *ret_result = (struct fl_unpack_result){
            .bytes = options->path ? fl_image_bytes(unpack.image) : 0,
            .data_bytes = unpack.data_bytes,
            .seconds = fl_seconds_wall() - start,
        };
    fl_image_unref(unpack.image);
    return r;
}
