// SPDX-License-Identifier: Apache-2.0
#include "snapshot/bad_frames.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

static int compare_ids(const void *a, const void *b)
{
    const struct fl_frame_id *left = a;
    const struct fl_frame_id *right = b;
    if (left->pack != right->pack)
        return left->pack < right->pack ? -1 : 1;
    return left->frame < right->frame ? -1 : left->frame > right->frame;
}

int fl_bad_frames_add(struct fl_bad_frames *bad, struct fl_frame_id id)
{
    if (bad->count > 0 && compare_ids(&bad->ids[bad->count - 1], &id) == 0)
        return 0;
    if (bad->count == bad->room) {
        size_t room = bad->room ? bad->room * 2 : 16;
        struct fl_frame_id *grown = realloc(bad->ids, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        bad->ids = grown;
        bad->room = room;
    }
    bad->ids[bad->count++] = id;
    return 0;
}

void fl_bad_frames_sort(struct fl_bad_frames *bad)
{
    size_t kept = 0;
    if (bad->count > 1)
        qsort(bad->ids, bad->count, sizeof(*bad->ids), compare_ids);
    for (size_t i = 0; i < bad->count; i++) {
        if (i == 0 || compare_ids(&bad->ids[i], &bad->ids[kept - 1]) != 0)
            bad->ids[kept++] = bad->ids[i];
    }
    bad->count = kept;
}

const struct fl_frame_id *fl_bad_frames_find(const struct fl_bad_frames *bad, struct fl_frame_id id)
{
    if (bad->count == 0)
        return NULL;
    return bsearch(&id, bad->ids, bad->count, sizeof(*bad->ids), compare_ids);
}

uint64_t fl_bad_frames_pages(const struct fl_bad_frames *bad, const struct fl_image *image,
                             uint64_t *ret_pack)
{
    uint64_t pages = 0;
    for (uint64_t page = 0; bad->count > 0 && page < image->header.pages;) {
        struct fl_run run = fl_image_run(image, page, FL_FRAME_PAGES_MAX);
        if (!run.zero && fl_bad_frames_find(bad, run.id)) {
            if (pages == 0)
                *ret_pack = run.id.pack;
            pages += run.pages;
        }
        page += run.pages;
    }
    return pages;
}

void fl_bad_frames_free(struct fl_bad_frames *bad)
{
    free(bad->ids);
    *bad = (struct fl_bad_frames){.ids = NULL};
}
