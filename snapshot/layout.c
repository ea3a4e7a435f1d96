// SPDX-License-Identifier: Apache-2.0
#include "snapshot/layout.h"

#include <errno.h>
#include <stdlib.h>

#include "snapshot/io.h"

int fl_layout_make(const struct fl_image *image, const struct fl_trace *trace,
                   struct fl_layout *ret_layout)
{
    struct fl_layout layout = {.count = 0};
    const struct fl_trace_entry *entries = fl_trace_entries(trace);
    uint64_t count = fl_trace_count(trace);
    layout.pages = malloc(count * sizeof(*layout.pages));
    if (!layout.pages)
        return -ENOMEM;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t entry = fl_image_entry(image, entries[i].page);
        if (entry != 0)
            layout.pages[layout.count++] =
                (struct fl_hot_page){.page = entries[i].page, .entry = entry};
    }
    *ret_layout = layout;
    return 0;
}

void fl_layout_free(struct fl_layout *layout)
{
    free(layout->pages);
    layout->pages = NULL;
}

static bool frames_are(const struct fl_layout *layout, const struct fl_pack *pack)
{
    uint64_t left = layout->count;
    for (uint32_t frame = 0; left > 0; frame++) {
        uint64_t pages = left < FL_HOT_FRAME_PAGES ? left : FL_HOT_FRAME_PAGES;
        if (fl_pack_frame_pages(pack, frame) != pages)
            return false;
        left -= pages;
    }
    return fl_pack_pages(pack) == layout->count;
}

bool fl_layout_is(const struct fl_layout *layout, const struct fl_image *image)
{
    if (layout->count == 0)
        return true;
    uint32_t pack = fl_entry_pack(layout->pages[0].entry);
    for (uint64_t i = 0; i < layout->count; i++) {
        if (layout->pages[i].entry != fl_layout_entry(pack, i))
            return false;
    }
    return frames_are(layout, image->packs[pack]);
}

static int compare_frames(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static void add_frame(const struct fl_image *image, uint64_t place, struct fl_replay_cost *cost)
{
    const struct fl_pack *pack = image->packs[fl_entry_pack(place)];
    cost->frames++;
    cost->bytes += fl_pack_frame_stored(pack, fl_entry_frame(place));
    cost->frame_pages += fl_pack_frame_pages(pack, fl_entry_frame(place));
}

// Frames of a pack follow each other in its file.
static bool next_frame(uint64_t place, uint64_t before)
{
    return fl_entry_pack(before) == fl_entry_pack(place) &&
           fl_entry_frame(before) + 1 == fl_entry_frame(place);
}

static uint64_t count_runs(const struct fl_layout *layout, const struct fl_image *image)
{
    uint64_t runs = 0;
    for (uint64_t i = 0; i < layout->count; runs++) {
        struct fl_run run = fl_image_run(image, layout->pages[i].page, FL_FRAME_PAGES_MAX);
        uint64_t next = layout->pages[i].page;
        for (uint32_t k = 0; k < run.pages && i < layout->count; k++) {
            if (layout->pages[i].page != next++)
                break;
            i++;
        }
    }
    return runs;
}

int fl_layout_cost(const struct fl_layout *layout, const struct fl_image *image,
                   struct fl_replay_cost *ret_cost)
{
    struct fl_replay_cost cost = {.pages = layout->count};
    FL_AUTO_FREE uint64_t *places = malloc((layout->count ? layout->count : 1) * sizeof(*places));
    if (!places)
        return -ENOMEM;
    for (uint64_t i = 0; i < layout->count; i++)
        places[i] = fl_entry_place(fl_image_entry(image, layout->pages[i].page));
    if (layout->count > 1)
        qsort(places, layout->count, sizeof(*places), compare_frames);
    for (uint64_t i = 0; i < layout->count; i++) {
        if (i > 0 && places[i] == places[i - 1])
            continue;
        add_frame(image, places[i], &cost);
        cost.pieces += i == 0 || !next_frame(places[i], places[i - 1]);
    }
    cost.runs = count_runs(layout, image);
    *ret_cost = cost;
    return 0;
}

// A run of the new layout ends with its frame, and where the next page of memory is another one.
static uint64_t expect_runs(const struct fl_layout *layout)
{
    uint64_t runs = 0;
    for (uint64_t i = 0; i < layout->count; i++)
        runs +=
            i % FL_HOT_FRAME_PAGES == 0 || layout->pages[i].page != layout->pages[i - 1].page + 1;
    return runs;
}

void fl_layout_expect(const struct fl_layout *layout, const struct fl_image *image,
                      struct fl_replay_cost *ret_cost)
{
    double bytes = 0;
    struct fl_replay_cost cost = {
        .pages = layout->count, .frame_pages = layout->count, .runs = expect_runs(layout)};
    for (uint64_t i = 0; i < layout->count; i++) {
        uint64_t entry = layout->pages[i].entry;
        const struct fl_pack *pack = image->packs[fl_entry_pack(entry)];
        uint32_t frame = fl_entry_frame(entry);
        bytes += (double)fl_pack_frame_stored(pack, frame) / fl_pack_frame_pages(pack, frame);
    }
    cost.frames = (layout->count + FL_HOT_FRAME_PAGES - 1) / FL_HOT_FRAME_PAGES;
    cost.pieces = layout->count > 0;
    cost.bytes = (uint64_t)bytes;
    *ret_cost = cost;
}
