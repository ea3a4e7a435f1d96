// SPDX-License-Identifier: Apache-2.0
//
// Chooses packs, and has them rewritten (rewrite.h): those of images that should be compressed in
// another way, or those in which much is not needed any more.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/rewrite.h"
#include "snapshot/sample.h"

// A pack of the right codec is rewritten if that saves at least one part in so many.
#define WORTH 50u
// A pack counts as one of a codec if at most one frame in so many is of another.
#define FEW 16u

struct job {
    struct fl_store *store;
    struct fl_error *error;
    struct fl_needed needed;
    struct fl_rewrite_result result;
    struct fl_needed_pack **chosen;
    size_t count;
    struct fl_rewrite rewrite;
};

static bool has_codec(const struct fl_pack *pack, enum fl_codec codec)
{
    struct fl_disk_frame frame;
    uint64_t others = 0;
    uint64_t compressed = 0;
    for (uint32_t i = 0; i < fl_pack_frames(pack); i++) {
        if (fl_pack_frame_entry(pack, i, &frame) < 0 || frame.codec == FL_CODEC_RAW)
            continue;
        compressed++;
        others += frame.codec != codec;
    }
    return others <= compressed / FEW;
}

static int would_save(const struct fl_pack *pack, struct fl_compression how, bool *ret_saves)
{
    struct fl_sampler *sampler;
    uint32_t frames = fl_pack_frames(pack);
    uint32_t samples = frames < FL_SAMPLE_FRAMES ? frames : FL_SAMPLE_FRAMES;
    int r = fl_sampler_new(&how, 1, &sampler);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < samples; i++)
        fl_sampler_add(sampler, pack, (uint32_t)((uint64_t)i * frames / samples));
    const struct fl_sample *sums = fl_sampler_sums(sampler);
    *ret_saves = sums->would[0] + sums->bytes / WORTH < sums->bytes;
    fl_sampler_free(sampler);
    return 0;
}

static void choose(struct job *job, struct fl_needed_pack *needed, bool wanted)
{
    if (!wanted) {
        job->result.packs_left++;
        return;
    }
    job->rewrite.total += needed->bytes;
    job->chosen[job->count++] = needed;
}

static int consider(struct job *job, struct fl_needed_pack *needed, struct fl_compression how)
{
    struct fl_pack *pack;
    int r = fl_pack_open(job->store->reader->registry, needed->id, &pack);
    if (r < 0)
        return r;
    bool wanted = !has_codec(pack, how.codec);
    if (!wanted)
        r = would_save(pack, how, &wanted);
    fl_pack_unref(pack);
    if (r == 0)
        choose(job, needed, wanted);
    return r;
}

static bool is_named(const struct fl_recompress_options *options, const char *name)
{
    for (size_t i = 0; i < options->names_count; i++) {
        if (strcmp(options->names[i], name) == 0)
            return true;
    }
    return !options->names;
}

// True if one of the images to be recompressed needs it.
static bool is_wanted(const struct job *job, const struct fl_recompress_options *options,
                      uint64_t pack)
{
    for (size_t i = 0; i < job->needed.images_count; i++) {
        const struct fl_needed_image *image = &job->needed.images[i];
        if (!is_named(options, image->name))
            continue;
        for (uint32_t k = 0; k < image->packs_count; k++) {
            if (image->packs[k] == pack)
                return true;
        }
    }
    return false;
}

// An image that is not among those that were read is missing, or cannot be read.
static int image_failed(struct job *job, const char *name)
{
    struct fl_image *image;
    int r = fl_image_open(job->store->reader, name, &image);
    if (r == 0)
        fl_image_unref(image);
    return fl_image_failed(job->store, name, r < 0 ? r : -ENOENT, job->error);
}

static int check_names(struct job *job, const struct fl_recompress_options *options)
{
    for (size_t i = 0; i < options->names_count; i++) {
        bool found = false;
        for (size_t k = 0; k < job->needed.images_count && !found; k++)
            found = strcmp(job->needed.images[k].name, options->names[i]) == 0;
        if (!found)
            return image_failed(job, options->names[i]);
    }
    return 0;
}

// What a killed run had begun is ended first: then no page of it counts as one that is not needed.
static int find_needed(struct job *job, bool resume)
{
    job->rewrite.store = job->store;
    job->rewrite.needed = &job->needed;
    job->rewrite.result = &job->result;
    int r = fl_needed_find(job->store, &job->needed);
    if (r < 0 || !resume)
        return r;
    r = fl_rewrite_resume(&job->rewrite);
    if (r < 0 || job->result.images == 0)
        return r;
    fl_needed_free(&job->needed);
    return fl_needed_find(job->store, &job->needed);
}

static int begin(struct job *job, bool resume)
{
    int r = find_needed(job, resume);
    if (r == 0) {
        job->chosen = calloc(job->needed.packs_count + 1, sizeof(*job->chosen));
        r = job->chosen ? 0 : -ENOMEM;
    }
    return r < 0 ? fl_fail(job->error, r, "cannot look through the images of the store %s",
                           job->store->dir)
                 : 0;
}

static int rewrite(struct job *job, const struct fl_progress *progress)
{
    job->rewrite.progress = progress;
    int r = fl_rewrite_packs(&job->rewrite, job->chosen, job->count);
    if (r == -ECANCELED)
        return fl_fail_plain(job->error, r,
                             "interrupted; images have what was done for them, and are whole");
    return r < 0 ? fl_fail(job->error, r, "cannot rewrite packs of the store %s", job->store->dir)
                 : 0;
}

static int recompress(struct job *job, const struct fl_recompress_options *options)
{
    int r = begin(job, true);
    if (r == 0)
        r = check_names(job, options);
    for (size_t i = 0; r == 0 && i < job->needed.packs_count; i++) {
        struct fl_needed_pack *pack = job->needed.packs[i];
        if (is_wanted(job, options, pack->id))
            r = consider(job, pack, options->compression);
        if (r < 0)
            r = fl_fail(job->error, r, "cannot read a pack of the store %s", job->store->dir);
        if (r == 0 && fl_progress_call(&options->progress, 0, job->rewrite.total) < 0)
            r = fl_fail_plain(job->error, -ECANCELED, "interrupted; nothing was changed");
    }
    job->rewrite.compression = options->compression;
    job->rewrite.threads = options->threads ? options->threads : 1;
    job->rewrite.pace.rate = options->rate;
    return r < 0 ? r : rewrite(job, &options->progress);
}

// While an image cannot be read it is not known what is needed.
static int compact(struct job *job, const struct fl_compact_options *options)
{
    struct fl_blame blame;
    int r = begin(job, !options->dry_run);
    if (r == 0 && job->needed.unreadable_error)
        r = fl_fail_plain(job->error, job->needed.unreadable_error,
                          "image '%s' cannot be read, so it is not known which pages it needs and "
                          "nothing was compacted (remove it to go on): %s",
                          job->needed.unreadable,
                          fl_image_blame(job->store, job->needed.unreadable,
                                         job->needed.unreadable_error, &blame));
    for (size_t i = 0; r == 0 && i < job->needed.packs_count; i++) {
        struct fl_needed_pack *pack = job->needed.packs[i];
        choose(job, pack,
               pack->pages < pack->total &&
                   (pack->total - pack->pages) * 100 >= options->percent * pack->total);
        if (options->dry_run && job->count > 0 && job->chosen[job->count - 1] == pack) {
            job->result.packs_rewritten++;
            job->result.bytes_before += pack->bytes;
            job->result.pages += pack->pages;
            job->result.pages_left_out += pack->total - pack->pages;
            job->result.bytes_after +=
                (uint64_t)((double)pack->bytes * (double)pack->pages / (double)pack->total);
        }
    }
    job->rewrite.threads = options->threads ? options->threads : 1;
    job->rewrite.pace.rate = options->rate;
    return r < 0 || options->dry_run ? r : rewrite(job, &options->progress);
}

static int run(struct fl_store *store, const struct fl_recompress_options *again,
               const struct fl_compact_options *less, struct fl_rewrite_result *ret_result,
               struct fl_error *ret_error)
{
    double start = fl_seconds_wall();
    struct job job = {.store = store, .error = ret_error};
    int r = fl_store_lock(store, FL_LOCK_SHARED, ret_error);
    if (r < 0)
        return r;
    r = again ? recompress(&job, again) : compact(&job, less);
    if (r == 0) {
        job.result.images_left += job.needed.unreadable_count;
        job.result.seconds = fl_seconds_wall() - start;
        *ret_result = job.result;
    }
    free(job.chosen);
    fl_needed_free(&job.needed);
    fl_store_unlock(store);
    return r;
}

int fl_store_recompress(struct fl_store *store, const struct fl_recompress_options *options,
                        struct fl_rewrite_result *ret_result, struct fl_error *ret_error)
{
    return run(store, options, NULL, ret_result, ret_error);
}

int fl_store_compact(struct fl_store *store, const struct fl_compact_options *options,
                     struct fl_rewrite_result *ret_result, struct fl_error *ret_error)
{
    return run(store, NULL, options, ret_result, ret_error);
}
