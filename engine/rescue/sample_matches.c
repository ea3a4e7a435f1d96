// SPDX-License-Identifier: Apache-2.0
#include "engine/rescue/sample_matches.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { BUCKETS = 4 * FL_SAMPLES_MAX };

static_assert((BUCKETS & (BUCKETS - 1)) == 0, "a mask finds the bucket");

// Samples by their hash: open addressing, indices from 1, 0 is free.
struct table {
    const struct fl_samples *samples;
    struct fl_match *match;
    uint32_t *bucket;
};

// --- pages of an image ---

int fl_page_reader_open(struct fl_page_reader *reader, const struct fl_image *image)
{
    *reader = (struct fl_page_reader){.image = image};
    reader->frame = malloc((size_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE);
    return reader->frame ? 0 : -ENOMEM;
}

void fl_page_reader_close(struct fl_page_reader *reader)
{
    free(reader->frame);
    reader->frame = NULL;
}

int fl_page_reader_get(struct fl_page_reader *reader, const struct fl_run *run,
                       const uint8_t **ret_pages)
{
    if (!reader->any || reader->id.pack != run->id.pack || reader->id.frame != run->id.frame) {
        reader->any = false;
        int error = fl_frame_read(reader->image, run->id, reader->frame);
        if (error)
            return error;
        reader->id = run->id;
        reader->any = true;
    }
    *ret_pages = reader->frame + (size_t)run->slot * FL_PAGE_SIZE;
    return 0;
}

// --- the samples' table ---

// The bucket of that content, or the free one where it would be.
static uint32_t *bucket_of(const struct table *table, uint64_t hash)
{
    size_t at = hash & (BUCKETS - 1);
    while (table->bucket[at] != 0 && table->samples->sample[table->bucket[at] - 1].hash != hash)
        at = (at + 1) & (BUCKETS - 1);
    return &table->bucket[at];
}

// Of samples with the same content the first stands for all.
static void put_samples(const struct table *table)
{
    for (size_t i = 0; i < table->samples->count; i++) {
        const struct fl_sample *sample = &table->samples->sample[i];
        uint32_t *bucket = sample->zero ? NULL : bucket_of(table, sample->hash);
        table->match[i] = (struct fl_match){0};
        if (bucket && *bucket == 0)
            *bucket = (uint32_t)i + 1;
    }
}

static void found_page(const struct table *table, uint64_t hash, uint64_t page)
{
    const uint32_t *bucket = bucket_of(table, hash);
    if (*bucket == 0)
        return;
    struct fl_match *match = &table->match[*bucket - 1];
    match->page = page;
    match->places += match->places < 2;
}

static void share_matches(const struct table *table)
{
    for (size_t i = 0; i < table->samples->count; i++) {
        const struct fl_sample *sample = &table->samples->sample[i];
        if (!sample->zero)
            table->match[i] = table->match[*bucket_of(table, sample->hash) - 1];
    }
}

// --- the image ---

static int look_at_run(const struct table *table, struct fl_page_reader *reader, uint64_t page,
                       const struct fl_run *run)
{
    const uint8_t *pages = NULL;
    int error = run->zero ? 0 : fl_page_reader_get(reader, run, &pages);
    for (uint32_t i = 0; pages && i < run->pages; i++)
        found_page(table, fl_sample_hash(pages + (size_t)i * FL_PAGE_SIZE), page + i);
    return error;
}

static int look_at_image(const struct table *table, const struct fl_image *image)
{
    struct fl_page_reader reader;
    int error = fl_page_reader_open(&reader, image);
    for (uint64_t page = 0; page < fl_image_pages(image) && !error;) {
        struct fl_run run = fl_image_run(image, page, UINT32_MAX);
        error = look_at_run(table, &reader, page, &run);
        page += run.pages;
    }
    fl_page_reader_close(&reader);
    return error;
}

int fl_matches_find(const struct fl_samples *samples, const struct fl_image *image,
                    struct fl_match *ret_match)
{
    struct table table = {.samples = samples, .match = ret_match};
    table.bucket = calloc(BUCKETS, sizeof(*table.bucket));
    if (!table.bucket)
        return -ENOMEM;
    put_samples(&table);
    int error = look_at_image(&table, image);
    share_matches(&table);
    free(table.bucket);
    return error;
}
