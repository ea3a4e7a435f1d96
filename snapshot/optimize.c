// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. To lay an image out by its trace, the pages of the trace are gathered in a
// nameless file, in the order of the new pack; each of their frames is read once. Then they are
// encoded from there. Then the pack is published, and after it the image with a map that points to
// it. All other pages stay where they are. A kill leaves the image as it was or laid out.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "snapshot/encoder.h"
#include "snapshot/identity.h"
#include "snapshot/image_file.h"
#include "snapshot/image_rewrite.h"
#include "snapshot/index.h"
#include "snapshot/io.h"
#include "snapshot/layout.h"
#include "snapshot/pack_name.h"
#include "snapshot/pack_writer.h"
#include "snapshot/publish.h"
#include "snapshot/store_dir.h"
#include "snapshot/trace_store.h"

struct job {
    struct fl_store *store;
    const struct fl_optimize_options *options;
    struct fl_error *error;
    struct fl_optimize_result result;
    struct fl_image *image;
    struct fl_layout layout;
    int scratch_fd;                 // the hot pages, by number
    struct fl_identity *identities; // of these pages, by number
    struct fl_hasher *hasher;
    struct fl_encoder *encoder;
    struct fl_pack_writer *pack;
    uint64_t done; // pages gathered and pages written
    uint8_t pages[FL_FRAME_PAGES_MAX * FL_PAGE_SIZE];
};

static int report_pages(struct job *job, uint64_t pages)
{
    job->done += pages;
    return fl_progress_call(&job->options->progress, job->done * FL_PAGE_SIZE,
                            2 * job->layout.count * FL_PAGE_SIZE);
}

// A page to be gathered: where it is, and its number in the new pack.
struct source {
    uint64_t entry;
    uint64_t number;
};

static int compare_sources(const void *left, const void *right)
{
    const struct source *a = left;
    const struct source *b = right;
    return a->entry < b->entry ? -1 : a->entry > b->entry;
}

// Writes one page of the frame that is in job->pages. Checks it against its identity, because the
// new image has the content id of the old one.
static int gather_page(struct job *job, const struct source *source,
                       const struct fl_identity *expected)
{
    const uint8_t *page = job->pages + (size_t)fl_entry_slot(source->entry) * FL_PAGE_SIZE;
    struct fl_identity *identity = &job->identities[source->number];
    int r = fl_hash_page(job->hasher, page, identity);
    if (r == 0 && memcmp(identity, expected, sizeof(*identity)) != 0)
        r = -EBADMSG;
    return r < 0
               ? r
               : fl_pwrite_full(job->scratch_fd, page, FL_PAGE_SIZE, source->number * FL_PAGE_SIZE);
}

// Writes the pages from `sources` on that are in one frame; sets how many there are.
static int gather_frame(struct job *job, const struct source *sources, uint64_t left,
                        uint64_t *ret_count)
{
    struct fl_identity expected[FL_FRAME_PAGES_MAX];
    uint64_t place = fl_entry_place(sources->entry);
    const struct fl_pack *pack = job->image->packs[fl_entry_pack(place)];
    uint32_t frame = fl_entry_frame(place);
    int r = fl_pack_read_frame(pack, frame, job->pages);
    if (r == 0)
        r = fl_pack_read_identities(pack, frame, 0, fl_pack_frame_pages(pack, frame), expected);
    uint64_t count = 0;
    while (r == 0 && count < left && fl_entry_place(sources[count].entry) == place) {
        r = gather_page(job, &sources[count], &expected[fl_entry_slot(sources[count].entry)]);
        count++;
    }
    *ret_count = count;
    return r < 0 ? r : report_pages(job, count);
}

static int gather_pages(struct job *job)
{
    uint64_t count = job->layout.count;
    FL_AUTO_FREE struct source *sources = malloc(count * sizeof(*sources));
    job->identities = malloc(count * sizeof(*job->identities));
    if (!sources || !job->identities)
        return -ENOMEM;
    for (uint64_t i = 0; i < count; i++)
        sources[i] = (struct source){job->layout.pages[i].entry, i};
    qsort(sources, count, sizeof(*sources), compare_sources);
    int r = 0;
    for (uint64_t i = 0; r == 0 && i < count;) {
        uint64_t pages = 0;
        r = gather_frame(job, &sources[i], count - i, &pages);
        i += pages;
    }
    return r;
}

static int write_frames(struct job *job)
{
    uint8_t out[FL_HOT_FRAME_PAGES * FL_PAGE_SIZE];
    int r = 0;
    for (uint64_t first = 0; r == 0 && first < job->layout.count; first += FL_HOT_FRAME_PAGES) {
        uint64_t left = job->layout.count - first;
        uint32_t pages = left < FL_HOT_FRAME_PAGES ? (uint32_t)left : FL_HOT_FRAME_PAGES;
        struct fl_disk_frame frame;
        r = fl_pread_full(job->scratch_fd, job->pages, (size_t)pages * FL_PAGE_SIZE,
                          first * FL_PAGE_SIZE);
        if (r < 0)
            return r;
        fl_encode(job->encoder, job->pages, pages, out, &frame);
        r = fl_pack_writer_append(job->pack, &frame, 1, out, frame.stored, &job->identities[first]);
        if (r == 0)
            r = report_pages(job, pages);
    }
    return r;
}

static int build_pack(struct job *job)
{
    if ((job->layout.count + FL_HOT_FRAME_PAGES - 1) / FL_HOT_FRAME_PAGES > UINT32_MAX)
        return -EOVERFLOW;
    // It is written once and read at each restore.
    const struct fl_compression usual = {FL_CODEC_LZ4, FL_LZ4_LEVEL_SMALL};
    int r = fl_hasher_new(&job->hasher);
    if (r == 0)
        r = fl_encoder_new(fl_compression_or(job->options->compression, usual), &job->encoder);
    if (r == 0)
        r = fl_scratch_create(job->store->tmp_fd, &job->scratch_fd);
    if (r == 0)
        r = fl_pack_writer_new(job->store->tmp_fd, &job->pack);
    if (r == 0)
        r = gather_pages(job);
    return r < 0 ? r : write_frames(job);
}

// Makes the image with its hot pages in the new pack.
static int plan_image(struct job *job, struct fl_image **ret_image)
{
    uint64_t *map = fl_image_copy_map(job->image);
    if (!map)
        return -ENOMEM;
    for (uint64_t i = 0; i < job->layout.count; i++)
        map[job->layout.pages[i].page] = fl_layout_entry(job->image->header.packs, i);
    uint64_t id = fl_pack_writer_id(job->pack);
    return fl_image_rewrite(job->store, job->image, map, &id, 1, ret_image);
}

static int write_image(struct job *job)
{
    struct fl_image *image = NULL;
    int r = plan_image(job, &image);
    if (r == 0)
        r = fl_layout_cost(&job->layout, image, &job->result.after);
    if (r == 0)
        r = fl_image_replace(job->store, job->image, image, &job->result.image_bytes);
    fl_image_unref(image);
    return r;
}

static void withdraw_pack(struct job *job)
{
    char name[FL_PACK_NAME_BYTES];
    fl_pack_name(fl_pack_writer_id(job->pack), name);
    unlinkat(job->store->packs_fd, name, 0);
}

static int publish_image(struct job *job)
{
    int r = fl_pack_writer_publish(job->pack, job->store->packs_fd, &job->result.stored_bytes);
    if (r < 0)
        return r;
    r = write_image(job);
    if (r < 0)
        withdraw_pack(job);
    else
        job->result.pack_id = fl_pack_writer_id(job->pack);
    return r;
}

// The pages keep their places in the index, because these are beside their neighbours.
static void update_index(struct job *job)
{
    struct fl_optimize_result *result = &job->result;
    result->index_error =
        fl_index_learn(job->store, result->pack_id, FL_INDEX_KEEP_KNOWN, &result->index_rebuilt);
    result->index_not_updated = result->index_error < 0;
}

static int optimize_failed(struct job *job, int error)
{
    const char *name = job->options->name;
    if (error == -ECANCELED)
        return fl_fail_plain(job->error, error, "interrupted; image '%s' is as it was", name);
    if (error == -ESTALE)
        return fl_fail_plain(job->error, error,
                             "image '%s' was replaced or removed meanwhile; nothing was changed",
                             name);
    return fl_fail(job->error, error, "cannot lay out image '%s' of the store %s", name,
                   job->store->dir);
}

static int trace_failed(struct job *job, int error)
{
    const char *name = job->options->name;
    if (error == -ENOENT)
        return fl_fail_plain(job->error, error, "image '%s' has no trace: record one first", name);
    return fl_fail_plain(job->error, error, "the trace of image '%s' cannot be used: %s", name,
                         fl_trace_strerror(error));
}

static int open_layout(struct job *job)
{
    struct fl_trace *trace;
    int r = fl_image_open(job->store->reader, job->options->name, &job->image);
    if (r < 0)
        return fl_image_failed(job->store, job->options->name, r, job->error);
    r = fl_trace_open(job->store->reader, job->image, &trace);
    if (r < 0)
        return trace_failed(job, r);
    job->result.trace_pages = fl_trace_count(trace);
    r = fl_layout_make(job->image, trace, &job->layout);
    fl_trace_unref(trace);
    if (r == 0)
        r = fl_layout_cost(&job->layout, job->image, &job->result.before);
    return r < 0 ? optimize_failed(job, r) : 0;
}

// Of the pack, but for its frames; the tables are written twice, first to files without a name.
static uint64_t table_bytes(uint64_t pages)
{
    uint64_t frames = (pages + FL_HOT_FRAME_PAGES - 1) / FL_HOT_FRAME_PAGES;
    return frames * sizeof(struct fl_disk_frame) + pages * sizeof(struct fl_identity);
}

static uint64_t ends_bytes(uint64_t pages)
{
    uint64_t frames = (pages + FL_HOT_FRAME_PAGES - 1) / FL_HOT_FRAME_PAGES;
    uint64_t pieces = (frames + FL_PIECE_FRAMES - 1) / FL_PIECE_FRAMES;
    return sizeof(struct fl_disk_pack_header) + pieces * sizeof(struct fl_disk_frame_piece) +
           sizeof(struct fl_disk_pack_footer);
}

// Of a file with all pieces of the map, and one pack more than the image has now.
static uint64_t image_bytes_max(const struct fl_image *image)
{
    uint64_t pages = image->entries;
    uint64_t pieces = (pages + FL_PIECE_ENTRIES - 1) / FL_PIECE_ENTRIES;
    return sizeof(struct fl_disk_image_header) + pages * sizeof(uint64_t) +
           pieces * sizeof(struct fl_disk_map_piece) +
           ((uint64_t)image->header.packs + 1) * sizeof(uint64_t);
}

// The index is left out: it keeps its size, as it learns no new page.
static void estimate(struct job *job)
{
    struct statvfs st;
    struct fl_optimize_result *result = &job->result;
    struct fl_optimize_estimate *guess = &result->estimate;
    uint64_t pages = job->layout.count;
    uint64_t raw = pages * FL_PAGE_SIZE;
    uint64_t tables = table_bytes(pages);
    fl_layout_expect(&job->layout, job->image, &result->after);
    result->stored_bytes = result->after.bytes + tables + ends_bytes(pages);
    result->image_bytes = image_bytes_max(job->image);
    guess->read_bytes =
        result->before.bytes + result->before.frame_pages * sizeof(struct fl_identity);
    guess->stored_bytes_max = raw + tables + ends_bytes(pages);
    guess->write_bytes_max = raw + tables + guess->stored_bytes_max + result->image_bytes;
    guess->space_bytes_max = guess->write_bytes_max; // what has no name goes at the very end
    if (fstatvfs(job->store->packs_fd, &st) == 0)
        guess->free_bytes = (uint64_t)st.f_bavail * st.f_frsize;
}

static int optimize_locked(struct job *job)
{
    int r = open_layout(job);
    if (r < 0)
        return r;
    job->result.zero_pages = job->result.trace_pages - job->layout.count;
    job->result.already = fl_layout_is(&job->layout, job->image);
    job->result.dry_run = job->options->dry_run;
    if (job->result.already) {
        job->result.after = job->result.before;
        return 0;
    }
    if (job->options->dry_run) {
        estimate(job);
        return 0;
    }
    r = build_pack(job);
    if (r == 0)
        r = publish_image(job);
    if (r < 0)
        return optimize_failed(job, r);
    update_index(job);
    return 0;
}

static void end_job(struct job *job)
{
    fl_image_unref(job->image);
    fl_layout_free(&job->layout);
    fl_cleanup_close(&job->scratch_fd);
    free(job->identities);
    fl_hasher_free(job->hasher);
    fl_encoder_free(job->encoder);
    fl_pack_writer_free(job->pack);
    free(job);
}

int fl_store_optimize(struct fl_store *store, const struct fl_optimize_options *options,
                      struct fl_optimize_result *ret_result, struct fl_error *ret_error)
{
    double start = fl_seconds_wall();
    struct job *job = calloc(1, sizeof(*job));
    if (!job)
        return fl_fail(ret_error, -ENOMEM, "cannot lay out image '%s'", options->name);
    *job = (struct job){.store = store, .options = options, .error = ret_error, .scratch_fd = -1};
    int r = fl_store_lock(store, FL_LOCK_SHARED, ret_error);
    bool locked = r == 0;
    if (locked)
        r = optimize_locked(job);
    if (r == 0) {
        job->result.seconds = fl_seconds_wall() - start;
        *ret_result = job->result;
    }
    end_job(job); // under the lock: without it gc may remove the files in tmp/
    if (locked)
        fl_store_unlock(store);
    return r;
}
