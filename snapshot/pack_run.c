// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. Packing has five stages, and batches of chunks pass through them
// (pipeline.h):
// - next (ordered) cuts the file into chunks; holes are chunks of their own. Of a live source it
//   waits for the pages of a chunk; of an image on offer it takes first what is waited for. The
//   chunks of companions come after those of memory. A batch is one chunk, but of a live source
//   with a parent it has all that are there and have little to do.
// - load (parallel) reads, finds zero pages, hashes, asks the index and reads frames to be shared.
//   Of a live source it also finds out which pages stay where the parent has them.
// - place (ordered) decides where each page goes and numbers the new frames.
// - encode (parallel) compresses the new frames.
// - write (ordered) appends frames, identities and map entries.
// So the files are in the order of the memory file, whatever the number of threads. Of an image on
// offer the frames are in the order in which chunks were taken; the rest waits in `write` for the
// chunks before it (pack_order.h).
#include "snapshot/pack_run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/io.h"
#include "snapshot/pack_input.h"
#include "snapshot/pack_live.h"
#include "snapshot/pipeline.h"
#include "snapshot/store_dir.h"

static int next_chunk(struct fl_pack_run *run, struct fl_chunk *chunk)
{
    chunk->companion = NULL;
    chunk->hole = false;
    if (run->next_page == run->input_pages) {
        int r = run->offer ? fl_live_settle(run) : 0;
        return r < 0 ? r : fl_with_next(&run->with, chunk);
    }
    return run->live ? fl_live_next(run, chunk) : fl_input_next(run, chunk);
}

static int next_batch(void *arg, void *item, unsigned thread)
{
    (void)thread;
    struct fl_pack_run *run = arg;
    struct fl_batch *batch = item;
    batch->count = 0;
    int r = 1;
    do {
        r = next_chunk(run, &batch->chunk[batch->count]);
        batch->count += r == 1;
    } while (r == 1 && batch->room > 1 && fl_live_more(run, batch));
    return r < 0 ? r : batch->count > 0;
}

int fl_pack_failed(struct fl_pack_run *run, enum fl_pack_fault what, int error)
{
    int none = FL_FAULT_NONE;
    atomic_compare_exchange_strong(&run->fault, &none, (int)what);
    return error;
}

static int hash_chunk(struct fl_chunk *chunk, struct fl_hasher *hasher)
{
    double begin = fl_seconds_thread();
    for (uint32_t page = 0; page < chunk->pages; page++) {
        if (chunk->zero[page])
            chunk->identity[page] = fl_zero_identity;
        if (chunk->zero[page] || chunk->known[page])
            continue;
        int r = fl_hash_page(hasher, fl_chunk_page(chunk, page), &chunk->identity[page]);
        if (r < 0)
            return r;
    }
    chunk->hash_seconds = fl_seconds_thread() - begin;
    return 0;
}

// What the index is asked for at once.
struct question {
    struct fl_identity asked[FL_INDEX_GET_MAX];
    struct fl_disk_place *hints[FL_INDEX_GET_MAX]; // where the answers go
    uint32_t count;
};

// The index is a cache: if it fails, these pages count as not known.
static void ask(struct fl_pack_run *run, struct question *question, struct fl_index_view *view)
{
    struct fl_disk_place places[FL_INDEX_GET_MAX];
    if (question->count == 0)
        return;
    int r = view ? fl_index_get(view, question->asked, question->count, places) : -ENOENT;
    if (r < 0 && view)
        atomic_store(&run->index_broken, true);
    for (uint32_t i = 0; r == 0 && i < question->count; i++)
        *question->hints[i] = places[i];
    question->count = 0;
}

// Asks for all pages of the batch that are not zero and not the parent's.
static void ask_index(struct fl_pack_run *run, struct fl_batch *batch, struct fl_index_view *view)
{
    struct question question = {.count = 0};
    for (unsigned i = 0; i < batch->count; i++) {
        struct fl_chunk *chunk = &batch->chunk[i];
        if (chunk->hole)
            continue;
        for (uint32_t page = 0; page < chunk->pages; page++) {
            chunk->hint[page].pack_id = 0;
            if (chunk->zero[page] || chunk->known[page])
                continue;
            question.asked[question.count] = chunk->identity[page];
            question.hints[question.count++] = &chunk->hint[page];
            if (question.count == FL_INDEX_GET_MAX)
                ask(run, &question, view);
        }
    }
    ask(run, &question, view);
}

// Who restores an image on offer has opened its packs before: no others can be shared.
static void drop_hints(const struct fl_pack_run *run, struct fl_chunk *chunk)
{
    for (uint32_t page = 0; page < chunk->pages; page++) {
        if (chunk->hint[page].pack_id != 0 &&
            !fl_offer_has_pack(run->offer, chunk->hint[page].pack_id))
            chunk->hint[page].pack_id = 0;
    }
}

static void check_shared(struct fl_pack_run *run, struct fl_chunk *chunk,
                         struct fl_share_room *room)
{
    double begin = fl_seconds_thread();
    fl_share_check_chunk(run->check, chunk, room);
    chunk->check_seconds = fl_seconds_thread() - begin;
}

static int read_chunk(struct fl_pack_run *run, struct fl_chunk *chunk,
                      const struct fl_pack_worker *worker)
{
    memset(chunk->zero, 0, sizeof(chunk->zero));
    memset(chunk->known, 0, sizeof(chunk->known));
    memset(chunk->inherited, 0, sizeof(chunk->inherited));
    if (chunk->companion) {
        int r = fl_with_read(chunk);
        return r < 0 ? fl_pack_failed(run, FL_FAULT_COMPANION, r) : 0;
    }
    return run->live ? fl_live_read(run, chunk, worker) : fl_input_read(run, chunk);
}

static int load_chunk(struct fl_pack_run *run, struct fl_chunk *chunk,
                      const struct fl_pack_worker *worker)
{
    chunk->parent_pages = chunk->inherited_pages = 0;
    chunk->input_pages = 0;
    chunk->foreign_max = FL_FOREIGN_FRAMES_MAX;
    chunk->data_bytes = 0;
    chunk->hash_seconds = chunk->check_seconds = 0;
    int r = chunk->hole ? 0 : read_chunk(run, chunk, worker);
    if (r < 0 || chunk->hole)
        return r;
    for (uint32_t page = 0; page < chunk->pages; page++) {
        if (!chunk->zero[page] && !chunk->known[page])
            chunk->zero[page] = fl_page_is_zero(fl_chunk_page(chunk, page));
    }
    return hash_chunk(chunk, worker->hasher);
}

static int load_batch(void *arg, void *item, unsigned thread)
{
    struct fl_pack_run *run = arg;
    struct fl_batch *batch = item;
    const struct fl_pack_worker *worker = &run->workers[thread];
    uint8_t *input = batch->input;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < batch->count; i++) {
        batch->chunk[i].input = input;
        r = load_chunk(run, &batch->chunk[i], worker);
        input += (size_t)batch->chunk[i].input_pages * FL_PAGE_SIZE;
    }
    if (r < 0)
        return r;
    ask_index(run, batch, worker->view);
    for (unsigned i = 0; i < batch->count; i++) {
        struct fl_chunk *chunk = &batch->chunk[i];
        if (chunk->hole)
            continue;
        if (run->offer)
            drop_hints(run, chunk);
        check_shared(run, chunk, worker->room);
    }
    return 0;
}

static int add_content(struct fl_pack_run *run, const struct fl_chunk *chunk)
{
    if (chunk->parent_pages > 0) {
        int failed = fl_hash_update(run->parent_content, chunk->parent_identity,
                                    chunk->parent_pages * sizeof(chunk->parent_identity[0]));
        if (failed < 0)
            return failed;
    }
    if (!chunk->hole)
        return fl_hash_update(run->content, chunk->identity,
                              chunk->pages * sizeof(chunk->identity[0]));
    int r = 0;
    for (uint64_t left = chunk->pages; r == 0 && left > 0;) {
        uint64_t step = left < FL_CHUNK_PAGES ? left : FL_CHUNK_PAGES;
        r = fl_hash_update(run->content, run->zeros, step * sizeof(run->zeros[0]));
        left -= step;
    }
    return r;
}

static int place_chunk(struct fl_pack_run *run, struct fl_chunk *chunk)
{
    int r = chunk->companion ? fl_with_hash(&run->with, chunk)
            : run->offer     ? 0 // in `write`
                             : add_content(run, chunk);
    if (r == 0)
        r = fl_dedup_place(run->dedup, chunk);
    if (!chunk->companion)
        run->counts = fl_dedup_counts(run->dedup);
    return r;
}

static int place_batch(void *arg, void *item, unsigned thread)
{
    (void)thread;
    struct fl_batch *batch = item;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < batch->count; i++)
        r = place_chunk(arg, &batch->chunk[i]);
    return r;
}

// Returns the frame's pages in one piece: where they are, or copied together to `gathered`.
static const uint8_t *frame_input(const struct fl_chunk *chunk, uint32_t first, uint32_t pages,
                                  uint8_t *gathered)
{
    const uint16_t *fresh = &chunk->fresh[first];
    uint32_t together = 1;
    while (together < pages &&
           (uint32_t)chunk->at[fresh[together]] == (uint32_t)chunk->at[fresh[0]] + together)
        together++;
    if (together == pages)
        return fl_chunk_page(chunk, fresh[0]);
    for (uint32_t i = 0; i < pages; i++)
        memcpy(gathered + (size_t)i * FL_PAGE_SIZE, fl_chunk_page(chunk, fresh[i]), FL_PAGE_SIZE);
    return gathered;
}

static void encode_chunk(struct fl_chunk *chunk, struct fl_encoder *encoder)
{
    uint8_t gathered[FL_FRAME_PAGES * FL_PAGE_SIZE];
    double begin = fl_seconds_thread();
    chunk->frames = 0;
    chunk->output_bytes = 0;
    for (uint32_t first = 0; first < chunk->fresh_count; first += FL_FRAME_PAGES) {
        uint32_t left = chunk->fresh_count - first;
        uint32_t pages = left < FL_FRAME_PAGES ? left : FL_FRAME_PAGES;
        struct fl_disk_frame *frame = &chunk->frame[chunk->frames++];
        fl_encode(encoder, frame_input(chunk, first, pages, gathered), pages,
                  chunk->output + chunk->output_bytes, frame);
        chunk->output_bytes += frame->stored;
    }
    for (uint32_t i = 0; i < chunk->fresh_count; i++)
        chunk->fresh_identity[i] = chunk->identity[chunk->fresh[i]];
    chunk->compress_seconds = fl_seconds_thread() - begin;
}

static int encode_batch(void *arg, void *item, unsigned thread)
{
    const struct fl_pack_run *run = arg;
    struct fl_batch *batch = item;
    uint8_t *output = batch->output;
    for (unsigned i = 0; i < batch->count; i++) {
        batch->chunk[i].output = output;
        encode_chunk(&batch->chunk[i], run->workers[thread].encoder);
        output += batch->chunk[i].output_bytes;
    }
    return 0;
}

static int write_map(struct fl_pack_run *run, const struct fl_chunk *chunk)
{
    return chunk->hole ? fl_image_writer_append_zero(run->image, chunk->pages)
                       : fl_image_writer_append(run->image, chunk->entry, chunk->pages);
}

static int write_in_order(void *arg, const struct fl_chunk *chunk)
{
    struct fl_pack_run *run = arg;
    int r = add_content(run, chunk);
    return r < 0 ? r : write_map(run, chunk);
}

// VMs see the chunk as soon as it is put: its frames are in the pack by then.
static int write_offered(struct fl_pack_run *run, const struct fl_chunk *chunk,
                         uint32_t first_frame)
{
    int r = fl_offer_put(run->offer, chunk, first_frame, fl_dedup_table(run->dedup));
    return r < 0 ? r : fl_pack_order_add(run->order, chunk, write_in_order, run);
}

static int write_files(struct fl_pack_run *run, struct fl_chunk *chunk)
{
    uint32_t first_frame = fl_pack_writer_frames(run->pack);
    int r = 0;
    if (!chunk->hole && chunk->frames > 0)
        r = fl_pack_writer_append(run->pack, chunk->frame, chunk->frames, chunk->output,
                                  chunk->output_bytes, chunk->fresh_identity);
    if (r < 0)
        return r;
    return run->offer && !chunk->companion ? write_offered(run, chunk, first_frame)
                                           : write_map(run, chunk);
}

static int write_chunk(struct fl_pack_run *run, struct fl_chunk *chunk)
{
    double begin = fl_seconds_wall();
    int r = write_files(run, chunk);
    if (r < 0)
        return fl_pack_failed(run, FL_FAULT_OUTPUT, r);
    run->write_seconds += fl_seconds_wall() - begin;
    if (!chunk->hole) {
        run->data_bytes += chunk->data_bytes;
        run->hash_seconds += chunk->hash_seconds;
        run->check_seconds += chunk->check_seconds;
        run->compress_seconds += chunk->compress_seconds;
    }
    if (!chunk->companion)
        atomic_fetch_add(&run->done, chunk->pages * FL_PAGE_SIZE);
    return 0;
}

static int write_batch(void *arg, void *item, unsigned thread)
{
    (void)thread;
    struct fl_batch *batch = item;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < batch->count; i++)
        r = write_chunk(arg, &batch->chunk[i]);
    return r;
}

static uint64_t done(void *arg)
{
    struct fl_pack_run *run = arg;
    uint64_t bytes = atomic_load(&run->done);
    return bytes < run->input_bytes ? bytes : run->input_bytes;
}

// The pages that were awaited will be of no use.
static void stopped(void *arg)
{
    struct fl_pack_run *run = arg;
    if (run->live && run->live->stop)
        run->live->stop(run->live->arg);
}

static void free_batches(struct fl_batch *batches, unsigned count)
{
    for (unsigned i = 0; batches && i < count; i++) {
        size_t bytes = batches[i].room * FL_CHUNK_BYTES;
        fl_unmap(batches[i].input, bytes);
        fl_unmap(batches[i].output, bytes);
        free(batches[i].chunk);
    }
    free(batches);
}

// Of a live source with a parent most chunks have little: they would not need a huge page each.
static struct fl_batch *make_batches(const struct fl_pack_run *run, unsigned count, unsigned room)
{
    void *(*map)(size_t bytes) = run->parent ? fl_map_small_pages : fl_map_memory;
    struct fl_batch *batches = calloc(count, sizeof(*batches));
    for (unsigned i = 0; batches && i < count; i++) {
        struct fl_batch *batch = &batches[i];
        batch->room = room;
        batch->chunk = calloc(batch->room, sizeof(*batch->chunk));
        batch->input = map(batch->room * FL_CHUNK_BYTES);
        batch->output = map(batch->room * FL_CHUNK_BYTES);
        if (!batch->chunk || !batch->input || !batch->output) {
            free_batches(batches, count);
            return NULL;
        }
    }
    return batches;
}

int fl_pack_run(struct fl_pack_run *run, const struct fl_progress *progress)
{
    static const struct fl_stage stages[] = {
        {next_batch, true},    {load_batch, false}, {place_batch, true},
        {encode_batch, false}, {write_batch, true},
    };
    // More than threads, so that a slow batch at the front does not stop those behind it at once.
    // An image on offer is seen chunk by chunk.
    bool many = run->parent && run->live->ready && !run->offer;
    unsigned count = many ? run->threads + 2 : 2 * run->threads + 2;
    struct fl_batch *batches = make_batches(run, count, many ? FL_BATCH_CHUNKS : 1);
    FL_AUTO_FREE void **items = calloc(count, sizeof(*items));
    if (!batches || !items) {
        free_batches(batches, count);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < count; i++)
        items[i] = &batches[i];
    for (uint32_t i = 0; i < FL_CHUNK_PAGES; i++)
        run->zeros[i] = fl_zero_identity;
    struct fl_pipeline pipeline = {
        .stages = stages,
        .stages_count = sizeof(stages) / sizeof(stages[0]),
        .items = items,
        .items_count = count,
        .threads = run->threads,
        .arg = run,
        .done = done,
        .stopped = stopped,
        .total = run->input_bytes,
        .progress = progress,
    };
    int r = fl_hash_start(run->content);
    if (r == 0)
        r = fl_hash_start(run->parent_content);
    if (r == 0)
        r = fl_pipeline_run(&pipeline);
    free_batches(batches, count);
    return r;
}
