// SPDX-License-Identifier: Apache-2.0
//
// Estimates what an image would take with other codecs.
#include <errno.h>
#include <stdlib.h>

#include "snapshot/image.h"
#include "snapshot/io.h"
#include "snapshot/sample.h"
#include "snapshot/store_dir.h"

static const struct fl_compression ways[FL_ESTIMATES] = {
    {FL_CODEC_LZ4, 1},
    {FL_CODEC_LZ4, FL_LZ4_LEVEL_SMALL},
    {FL_CODEC_ZSTD, 3},
    {FL_CODEC_ZSTD, FL_ZSTD_LEVEL_SMALL},
    {FL_CODEC_ZSTD, FL_ZSTD_LEVEL_MAX},
};

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

// Lists each frame that the image refers to once, in an array of room for all of its pages that are
// not zero. Neighbours mostly share a frame.
static uint64_t list_frames(const struct fl_image *image, uint64_t *places)
{
    uint64_t count = 0;
    uint64_t kept = 0;
    for (uint64_t page = 0; (page = fl_image_skip_zero(image, page)) < image->header.pages;
         page++) {
        uint64_t entry = fl_image_entry(image, page);
        if (entry != 0 && (count == 0 || places[count - 1] != fl_entry_place(entry)))
            places[count++] = fl_entry_place(entry);
    }
    if (count > 1)
        qsort(places, count, sizeof(*places), compare);
    for (uint64_t i = 0; i < count; i++) {
        if (kept == 0 || places[kept - 1] != places[i])
            places[kept++] = places[i];
    }
    return kept;
}

static uint64_t stored_bytes(const struct fl_image *image, const uint64_t *places, uint64_t count)
{
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < count; i++)
        bytes +=
            fl_pack_frame_stored(image->packs[fl_entry_pack(places[i])], fl_entry_frame(places[i]));
    return bytes;
}

static void fill(const struct fl_sample *sums, uint64_t stored,
                 struct fl_codec_estimate ret_estimates[FL_ESTIMATES])
{
    double scale = sums->bytes > 0 ? (double)stored / (double)sums->bytes : 0;
    for (unsigned i = 0; i < FL_ESTIMATES; i++)
        ret_estimates[i] = (struct fl_codec_estimate){
            .compression = ways[i], .stored_bytes = (uint64_t)((double)sums->would[i] * scale)};
}

static int estimate(const struct fl_image *image,
                    struct fl_codec_estimate ret_estimates[FL_ESTIMATES], uint64_t *ret_frames)
{
    size_t room = (image->header.pages + 1) * sizeof(uint64_t);
    uint64_t *places = fl_map_memory(room);
    struct fl_sampler *sampler = NULL;
    int r = places ? fl_sampler_new(ways, FL_ESTIMATES, &sampler) : -ENOMEM;
    if (r == 0) {
        uint64_t count = list_frames(image, places);
        uint64_t samples = count < FL_SAMPLE_FRAMES ? count : FL_SAMPLE_FRAMES;
        for (uint64_t i = 0; i < samples; i++) {
            uint64_t place = places[i * count / samples];
            fl_sampler_add(sampler, image->packs[fl_entry_pack(place)], fl_entry_frame(place));
        }
        fill(fl_sampler_sums(sampler), stored_bytes(image, places, count), ret_estimates);
        *ret_frames = fl_sampler_sums(sampler)->frames;
    }
    fl_sampler_free(sampler);
    fl_unmap(places, room);
    return r;
}

int fl_store_inspect_codecs(struct fl_store *store, const char *name,
                            struct fl_codec_estimate ret_estimates[FL_ESTIMATES],
                            uint64_t *ret_frames, struct fl_error *ret_error)
{
    struct fl_image *image;
    int r = fl_image_open(store->reader, name, &image);
    if (r == 0) {
        r = estimate(image, ret_estimates, ret_frames);
        fl_image_unref(image);
    }
    return r < 0 ? fl_image_failed(store, name, r, ret_error) : 0;
}
