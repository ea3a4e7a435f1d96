// SPDX-License-Identifier: Apache-2.0
//
// Publishes the new pack, then each image with a new map, then updates the index. A kill leaves
// each image with its old map or its new one.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/bad_list.h"
#include "snapshot/frame.h"
#include "snapshot/heal.h"
#include "snapshot/image_rewrite.h"
#include "snapshot/index.h"
#include "snapshot/io.h"
#include "snapshot/pack_name.h"
#include "snapshot/pack_writer.h"

// Copies up to FL_FRAME_PAGES found pages, from pages[*at] on, into heal->room. Returns how many.
static int gather_frame(struct fl_heal *heal, uint64_t *at, uint64_t first_number,
                        struct fl_identity *identities, uint32_t *ret_pages)
{
    int r = 0;
    uint32_t pages = 0;
    for (; r == 0 && *at < heal->count && pages < FL_FRAME_PAGES; ++*at) {
        struct fl_heal_page *page = &heal->pages[*at];
        if (!page->found)
            continue;
        r = fl_pread_full(heal->scratch_fd, heal->room + (size_t)pages * FL_PAGE_SIZE, FL_PAGE_SIZE,
                          *at * FL_PAGE_SIZE);
        identities[pages] = page->identity;
        page->number = first_number + pages++;
    }
    *ret_pages = pages;
    return r;
}

static int write_frames(struct fl_heal *heal, struct fl_pack_writer *writer)
{
    uint8_t out[FL_FRAME_PAGES * FL_PAGE_SIZE];
    struct fl_identity identities[FL_FRAME_PAGES];
    uint64_t number = 0;
    int r = 0;
    for (uint64_t at = 0; r == 0 && at < heal->count;) {
        struct fl_disk_frame frame;
        uint32_t pages = 0;
        r = gather_frame(heal, &at, number, identities, &pages);
        if (r < 0 || pages == 0)
            return r;
        fl_frame_encode(heal->room, pages, out, &frame);
        r = fl_pack_writer_append(writer, &frame, 1, out, frame.stored, identities);
        number += pages;
    }
    return r;
}

static int write_pack(struct fl_heal *heal)
{
    struct fl_pack_writer *writer = NULL;
    int r = fl_pack_writer_new(heal->store->tmp_fd, &writer);
    if (r == 0)
        r = write_frames(heal, writer);
    if (r == 0)
        r = fl_pack_writer_publish(writer, heal->store->packs_fd, &heal->stored_bytes);
    if (r == 0)
        heal->pack_id = fl_pack_writer_id(writer);
    fl_pack_writer_free(writer);
    return r;
}

// Pages are sorted by frame and slot.
static const struct fl_heal_page *find_page(const struct fl_heal *heal, uint32_t frame,
                                            uint32_t slot)
{
    uint64_t low = 0;
    uint64_t high = heal->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        const struct fl_heal_page *page = &heal->pages[middle];
        if (page->frame == frame && page->slot == slot)
            return page;
        if (page->frame < frame || (page->frame == frame && page->slot < slot))
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

struct change {
    uint64_t *map;
    uint64_t healed, left;
};

static void change_run(const struct fl_heal *heal, const struct fl_image *image, uint64_t first,
                       const struct fl_run *run, struct change *change)
{
    const struct fl_frame_id *id = run->zero ? NULL : fl_bad_frames_find(&heal->bad, run->id);
    for (uint32_t i = 0; id && i < run->pages; i++) {
        const struct fl_heal_page *page =
            find_page(heal, (uint32_t)(id - heal->bad.ids), run->slot + i);
        if (!page || !page->found) {
            change->left++;
            continue;
        }
        change->map[first + i] =
            fl_entry(image->header.packs, (uint32_t)(page->number / FL_FRAME_PAGES),
                     (uint32_t)(page->number % FL_FRAME_PAGES));
        change->healed++;
    }
}

static int change_map(const struct fl_heal *heal, const struct fl_image *image,
                      struct change *change)
{
    change->map = fl_image_copy_map(image);
    if (!change->map)
        return -ENOMEM;
    for (uint64_t page = 0; page < image->entries;) {
        struct fl_run run = fl_image_run(image, page, FL_FRAME_PAGES_MAX);
        change_run(heal, image, page, &run, change);
        page += run.pages;
    }
    return 0;
}

static int heal_open_image(struct fl_heal *heal, const struct fl_image *image, uint64_t *ret_left)
{
    struct change change = {.map = NULL};
    struct fl_image *healed = NULL;
    uint64_t bytes;
    int r = change_map(heal, image, &change);
    if (r < 0)
        return r;
    if (change.healed == 0 || heal->dry_run) {
        fl_unmap(change.map, image->entries * sizeof(*change.map));
    } else {
        r = fl_image_rewrite(heal->store, image, change.map, &heal->pack_id, 1, &healed);
        if (r == 0)
            r = fl_image_replace(heal->store, image, healed, &bytes);
        fl_image_unref(healed);
        heal->images_healed += r == 0;
    }
    if (r == 0)
        *ret_left = change.left;
    return r;
}

// If the image was replaced meanwhile it is looked at again; if it was removed it needs nothing.
static int heal_image(struct fl_heal *heal, const char *name, uint64_t *ret_left)
{
    int r;
    do {
        struct fl_image *image;
        r = fl_image_open(heal->store->reader, name, &image);
        if (r == 0) {
            r = heal_open_image(heal, image, ret_left);
            fl_image_unref(image);
        }
    } while (r == -ESTALE);
    if (r == -ENOENT)
        *ret_left = 0;
    return r == -ENOENT ? 0 : r;
}

// From now on the index has the new places of these pages.
static void update_index(struct fl_heal *heal)
{
    heal->index_error =
        fl_index_learn(heal->store, heal->pack_id, FL_INDEX_NEWER, &heal->index_rebuilt);
}

static void withdraw_pack(struct fl_heal *heal)
{
    char name[FL_PACK_NAME_BYTES];
    fl_pack_name(heal->pack_id, name);
    unlinkat(heal->store->packs_fd, name, 0);
    heal->pack_id = 0;
}

static bool hopeless(int error)
{
    return error == -ENOSPC || error == -EDQUOT || error == -EROFS || error == -EIO;
}

static int heal_images(struct fl_heal *heal)
{
    for (size_t i = 0; i < heal->images_count; i++) {
        struct fl_heal_image *image = &heal->images[i];
        if (image->error < 0) // it cannot be opened
            continue;
        image->error = heal_image(heal, image->name, &image->left);
        if (hopeless(image->error))
            return image->error; // the others would fare no better
    }
    return 0;
}

int fl_heal_publish(struct fl_heal *heal)
{
    if (heal->missing == heal->count)
        return 0;
    int r = heal->dry_run ? 0 : write_pack(heal);
    if (r == 0)
        r = heal_images(heal);
    if (heal->pack_id != 0 && heal->images_healed == 0)
        withdraw_pack(heal);
    if (heal->pack_id != 0)
        update_index(heal);
    return r;
}

// Pages are sorted by frame.
static bool any_left(const struct fl_heal *heal, size_t frame)
{
    uint64_t low = 0;
    uint64_t high = heal->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (heal->pages[middle].frame < frame)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < heal->count && heal->pages[low].frame == frame; low++) {
        if (!heal->pages[low].found || heal->pack_id == 0)
            return true;
    }
    return false;
}

bool fl_heal_needs(const struct fl_heal *heal, size_t frame)
{
    for (size_t i = 0; i < heal->images_count; i++) {
        if (heal->images[i].error < 0) // it may need anything
            return true;
    }
    return any_left(heal, frame);
}

int fl_heal_note(struct fl_heal *heal)
{
    struct fl_bad_frames needed = {.ids = NULL};
    struct fl_bad_frames unused = {.ids = NULL};
    int r = 0;
    for (size_t i = 0; r == 0 && i < heal->bad.count; i++)
        r = fl_bad_frames_add(fl_heal_needs(heal, i) ? &needed : &unused, heal->bad.ids[i]);
    if (r == 0)
        r = fl_bad_list_change(heal->store,
                               &(struct fl_bad_change){.needed = &needed, .unused = &unused});
    fl_bad_frames_free(&needed);
    fl_bad_frames_free(&unused);
    return r;
}
