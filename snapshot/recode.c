// SPDX-License-Identifier: Apache-2.0
//
// A pipeline: `next` chooses frames of the old pack that become one frame, `encode` reads, checks
// and compresses them, `write` appends the result and notes the places. A frame of more needed
// pages than a new one has becomes several.
#include "snapshot/recode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/encoder.h"
#include "snapshot/frame.h"
#include "snapshot/identity.h"
#include "snapshot/io.h"
#include "snapshot/pack_writer.h"
#include "snapshot/pipeline.h"

#define FRAMES_MOST (FL_FRAME_PAGES_MAX / FL_FRAME_PAGES)
#define ROOM ((size_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE)

struct source {
    uint32_t frame;
    uint32_t needed; // pages
    bool bad;
};

struct item {
    struct source source[FL_FRAME_PAGES];
    uint32_t sources;
    uint32_t pages; // needed ones of all of them; then of the good ones
    uint8_t *input; // ROOM
    uint8_t *output;
    struct fl_disk_frame frame[FRAMES_MOST];
    struct fl_identity identity[FL_FRAME_PAGES_MAX];
    uint32_t frames;
    size_t output_bytes;
    uint64_t read_bytes;
};

struct worker {
    struct fl_encoder *encoder;
    struct fl_hasher *hasher;
    uint8_t *stored, *bytes; // of one old frame: ROOM each
    struct fl_identity identity[FL_FRAME_PAGES_MAX];
};

struct run {
    const struct fl_recode_options *options;
    struct fl_move *move;
    struct worker *workers;
    struct item *items;
    unsigned items_count;
    uint32_t next; // frame
    struct fl_pack_writer *writer;
    atomic_uint_fast64_t done;
};

static uint64_t first_page(const struct fl_pack *pack, uint32_t frame)
{
    uint64_t page = 0;
    return fl_pack_page_number(pack, frame, 0, &page) == 0 ? page : 0;
}

static uint32_t needed_pages(const struct fl_move *move, uint32_t frame)
{
    return fl_needed_count(move->bits, first_page(move->from, frame),
                           fl_pack_frame_pages(move->from, frame));
}

static int next_item(void *arg, void *place, unsigned thread)
{
    (void)thread;
    struct run *run = arg;
    struct item *item = place;
    item->sources = item->pages = 0;
    for (; run->next < fl_pack_frames(run->move->from); run->next++) {
        uint32_t needed = needed_pages(run->move, run->next);
        if (needed == 0)
            continue;
        if (item->sources == FL_FRAME_PAGES ||
            (item->sources > 0 && item->pages + needed > FL_FRAME_PAGES))
            break;
        item->source[item->sources++] = (struct source){.frame = run->next, .needed = needed};
        item->pages += needed;
    }
    return item->sources > 0;
}

// Reads a frame and its identities. -EBADMSG and errors of reading: the frame is bad.
static int read_source(const struct fl_pack *pack, uint32_t frame, struct worker *worker,
                       uint64_t *read_bytes)
{
    struct fl_frame_place place;
    int r = fl_pack_frame_place(pack, frame, &place);
    if (r == 0)
        r = fl_pread_full(place.fd, worker->stored, place.stored, place.offset);
    if (r == 0)
        r = fl_pack_unpack_frame(pack, frame, worker->stored, worker->bytes);
    if (r == 0)
        r = fl_pack_read_identities(pack, frame, 0, fl_pack_frame_pages(pack, frame),
                                    worker->identity);
    if (r == 0)
        *read_bytes += place.stored;
    return r;
}

// Takes the needed pages of the frame that the worker has, from the item's page `at` on.
static int take_pages(const struct fl_move *move, uint32_t frame, struct worker *worker,
                      struct item *item, uint32_t at)
{
    uint64_t first = first_page(move->from, frame);
    uint32_t pages = fl_pack_frame_pages(move->from, frame);
    for (uint32_t slot = 0; slot < pages; slot++) {
        const uint8_t *page = worker->bytes + (size_t)slot * FL_PAGE_SIZE;
        struct fl_identity *identity = &item->identity[at];
        if (!fl_needed_bit(move->bits, first + slot))
            continue;
        int r = fl_hash_page(worker->hasher, page, identity);
        if (r < 0)
            return r;
        if (memcmp(identity, &worker->identity[slot], sizeof(*identity)) != 0)
            return -EBADMSG;
        memcpy(item->input + (size_t)at++ * FL_PAGE_SIZE, page, FL_PAGE_SIZE);
    }
    return 0;
}

static int gather(const struct run *run, struct item *item, struct worker *worker)
{
    item->pages = 0;
    item->read_bytes = 0;
    for (uint32_t i = 0; i < item->sources; i++) {
        struct source *source = &item->source[i];
        int r = read_source(run->move->from, source->frame, worker, &item->read_bytes);
        if (r == 0)
            r = take_pages(run->move, source->frame, worker, item, item->pages);
        if (r == -ENOMEM)
            return r;
        source->bad = r < 0;
        item->pages += source->bad ? 0 : source->needed;
    }
    return 0;
}

// True if the item is one frame of the old pack, as it is.
static bool is_whole(const struct run *run, const struct item *item)
{
    const struct fl_pack *pack = run->move->from;
    return run->options->keep && item->sources == 1 && !item->source[0].bad &&
           item->pages == fl_pack_frame_pages(pack, item->source[0].frame) &&
           item->pages <= FL_FRAME_PAGES;
}

static void copy_frame(const struct run *run, struct item *item, const struct worker *worker)
{
    fl_pack_frame_entry(run->move->from, item->source[0].frame, &item->frame[0]);
    memcpy(item->output, worker->stored, item->frame[0].stored);
    item->frames = 1;
    item->output_bytes = item->frame[0].stored;
}

static void compress(struct item *item, struct worker *worker)
{
    item->frames = 0;
    item->output_bytes = 0;
    for (uint32_t first = 0; first < item->pages; first += FL_FRAME_PAGES) {
        uint32_t left = item->pages - first;
        struct fl_disk_frame *frame = &item->frame[item->frames++];
        fl_encode(worker->encoder, item->input + (size_t)first * FL_PAGE_SIZE,
                  left < FL_FRAME_PAGES ? left : FL_FRAME_PAGES, item->output + item->output_bytes,
                  frame);
        item->output_bytes += frame->stored;
    }
}

static int encode_item(void *arg, void *place, unsigned thread)
{
    struct run *run = arg;
    struct item *item = place;
    struct worker *worker = &run->workers[thread];
    int r = gather(run, item, worker);
    if (r < 0)
        return r;
    if (is_whole(run, item))
        copy_frame(run, item, worker);
    else
        compress(item, worker);
    return 0;
}

static void note_places(struct run *run, const struct item *item, uint32_t first_frame)
{
    uint32_t slot = 0;
    for (uint32_t i = 0; i < item->sources; i++) {
        const struct source *source = &item->source[i];
        if (source->bad) {
            run->move->bad_frames++;
            continue;
        }
        run->move->frames[source->frame] =
            (struct fl_moved_frame){.frame = first_frame, .slot = slot};
        slot += source->needed;
    }
    run->move->pages += item->pages;
}

static int write_item(void *arg, void *place, unsigned thread)
{
    (void)thread;
    struct run *run = arg;
    struct item *item = place;
    uint32_t first_frame = fl_pack_writer_frames(run->writer);
    int r = item->frames == 0
                ? 0
                : fl_pack_writer_append(run->writer, item->frame, item->frames, item->output,
                                        item->output_bytes, item->identity);
    if (r < 0)
        return r;
    note_places(run, item, first_frame);
    atomic_fetch_add(&run->done, item->read_bytes);
    fl_pace_count(run->options->pace, item->read_bytes + item->output_bytes);
    return 0;
}

static uint64_t done(void *arg)
{
    const struct run *run = arg;
    return run->options->done + atomic_load(&run->done);
}

static void stopped(void *arg)
{
    fl_pace_stop(((struct run *)arg)->options->pace);
}

static int open_worker(struct worker *worker, struct fl_compression how)
{
    worker->stored = fl_map_small_pages(ROOM);
    worker->bytes = fl_map_small_pages(ROOM);
    if (!worker->stored || !worker->bytes)
        return -ENOMEM;
    int r = fl_encoder_new(how, &worker->encoder);
    return r < 0 ? r : fl_hasher_new(&worker->hasher);
}

static int begin(struct run *run)
{
    const struct fl_recode_options *options = run->options;
    run->items_count = 2 * options->threads + 2;
    run->items = calloc(run->items_count, sizeof(*run->items));
    run->workers = calloc(options->threads, sizeof(*run->workers));
    int r = run->items && run->workers ? 0 : -ENOMEM;
    for (unsigned i = 0; r == 0 && i < run->items_count; i++) {
        run->items[i].input = fl_map_small_pages(ROOM);
        run->items[i].output = fl_map_small_pages(ROOM);
        r = run->items[i].input && run->items[i].output ? 0 : -ENOMEM;
    }
    for (unsigned i = 0; r == 0 && i < options->threads; i++)
        r = open_worker(&run->workers[i], options->compression);
    return r;
}

static void end(struct run *run)
{
    for (unsigned i = 0; run->items && i < run->items_count; i++) {
        fl_unmap(run->items[i].input, ROOM);
        fl_unmap(run->items[i].output, ROOM);
    }
    for (unsigned i = 0; run->workers && i < run->options->threads; i++) {
        fl_unmap(run->workers[i].stored, ROOM);
        fl_unmap(run->workers[i].bytes, ROOM);
        fl_encoder_free(run->workers[i].encoder);
        fl_hasher_free(run->workers[i].hasher);
    }
    free(run->items);
    free(run->workers);
    fl_pack_writer_free(run->writer);
}

static int run_stages(struct run *run)
{
    static const struct fl_stage stages[] = {
        {next_item, true}, {encode_item, false}, {write_item, true}};
    FL_AUTO_FREE void **items = calloc(run->items_count, sizeof(*items));
    if (!items)
        return -ENOMEM;
    for (unsigned i = 0; i < run->items_count; i++)
        items[i] = &run->items[i];
    struct fl_pipeline pipeline = {
        .stages = stages,
        .stages_count = sizeof(stages) / sizeof(stages[0]),
        .items = items,
        .items_count = run->items_count,
        .threads = run->options->threads,
        .arg = run,
        .done = done,
        .stopped = stopped,
        .total = run->options->total,
        .progress = run->options->progress,
    };
    return fl_pipeline_run(&pipeline);
}

static int write_pack(struct fl_store *store, struct run *run)
{
    struct fl_move *move = run->move;
    int r = begin(run);
    if (r == 0)
        r = fl_pack_writer_new(store->tmp_fd, &run->writer);
    if (r == 0)
        r = run_stages(run);
    if (r < 0 || fl_pack_writer_frames(run->writer) == 0)
        return r;
    r = fl_pack_writer_publish(run->writer, store->packs_fd, &move->bytes);
    if (r == 0)
        move->pack_id = fl_pack_writer_id(run->writer);
    return r;
}

int fl_recode(struct fl_store *store, const struct fl_needed_pack *needed,
              const struct fl_recode_options *options, struct fl_move *ret_move)
{
    struct fl_move move = {.bits = needed->bits};
    struct run run = {.options = options, .move = &move};
    int r = fl_pack_open(store->reader->registry, needed->id, &move.from);
    if (r < 0)
        return r;
    r = fl_pack_know_all(move.from);
    uint32_t frames = fl_pack_frames(move.from);
    move.frames = malloc(frames * sizeof(*move.frames));
    if (r == 0 && !move.frames)
        r = -ENOMEM;
    for (uint32_t i = 0; r == 0 && i < frames; i++)
        move.frames[i] = (struct fl_moved_frame){.frame = UINT32_MAX};
    if (r == 0)
        r = write_pack(store, &run);
    end(&run);
    if (r < 0)
        fl_move_end(&move);
    else
        *ret_move = move;
    return r;
}

void fl_move_end(struct fl_move *move)
{
    fl_pack_unref(move->from);
    free(move->frames);
    free(move->own_bits);
}

uint64_t fl_move_entry(const struct fl_move *move, uint64_t entry, uint32_t pack)
{
    uint32_t frame = fl_entry_frame(entry);
    struct fl_moved_frame moved = move->frames[frame];
    uint64_t first = first_page(move->from, frame);
    // An image that is newer than `bits` may need a page that was not moved.
    if (moved.frame == UINT32_MAX || !fl_needed_bit(move->bits, first + fl_entry_slot(entry)))
        return 0;
    uint32_t page = moved.slot + fl_needed_count(move->bits, first, fl_entry_slot(entry));
    return fl_entry(pack, moved.frame + page / FL_FRAME_PAGES, page % FL_FRAME_PAGES);
}

struct fl_compression fl_recode_same(const struct fl_pack *pack)
{
    struct fl_disk_frame frame;
    for (uint32_t i = 0; i < fl_pack_frames(pack); i++) {
        if (fl_pack_frame_entry(pack, i, &frame) == 0 && frame.codec == FL_CODEC_ZSTD)
            return (struct fl_compression){FL_CODEC_ZSTD, FL_ZSTD_LEVEL_SMALL};
    }
    return (struct fl_compression){FL_CODEC_LZ4, FL_LZ4_LEVEL_SMALL};
}
