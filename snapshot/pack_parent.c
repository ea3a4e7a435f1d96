// SPDX-License-Identifier: Apache-2.0
#include "snapshot/pack_parent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/dedup.h"
#include "snapshot/image.h"
#include "snapshot/io.h"

enum {
    PACKS_MANY = 64,
    PACKS_SHARE = 64, // a generation stores at most so much of the image again to have fewer packs
};

// --- opening ---

static int count_use(struct fl_parent *parent, uint64_t *pages_of)
{
    const struct fl_image *image = parent->image;
    for (uint32_t i = 0; i < image->header.packs; i++) {
        parent->ids[i] = fl_pack_id(image->packs[i]);
        parent->use[i] = calloc(fl_pack_frames(image->packs[i]), sizeof(uint16_t));
        if (!parent->use[i])
            return -ENOMEM;
    }
    for (uint64_t page = 0; (page = fl_image_skip_zero(image, page)) < image->header.pages;
         page++) {
        uint64_t entry = fl_image_entry(image, page);
        if (entry == 0)
            continue;
        uint16_t *use = &parent->use[fl_entry_pack(entry)][fl_entry_frame(entry)];
        *use = (uint16_t)(*use + (*use < UINT16_MAX));
        pages_of[fl_entry_pack(entry)]++;
    }
    return 0;
}

struct size {
    uint64_t pages;
    uint32_t pack;
};

static int compare_sizes(const void *left, const void *right)
{
    const struct size *a = left;
    const struct size *b = right;
    if (a->pages != b->pages)
        return a->pages < b->pages ? -1 : 1;
    return a->pack < b->pack ? -1 : a->pack > b->pack;
}

// Leaves the smallest packs out while there are many.
static int choose_packs(struct fl_parent *parent, const uint64_t *pages_of)
{
    uint32_t count = parent->image->header.packs;
    uint64_t may = parent->image->header.pages / PACKS_SHARE;
    uint32_t left = 0;
    FL_AUTO_FREE struct size *sizes = malloc((count + 1) * sizeof(*sizes));
    if (!sizes)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        parent->kept[i] = pages_of[i] > 0;
        if (parent->kept[i])
            sizes[left++] = (struct size){pages_of[i], i};
    }
    parent->all_kept = true;
    qsort(sizes, left, sizeof(*sizes), compare_sizes);
    for (uint32_t i = 0; left > PACKS_MANY; i++, left--) {
        bool must = left > FL_FOREIGN_PACKS_MAX;
        if (!must && sizes[i].pages > may)
            break;
        may -= sizes[i].pages < may ? sizes[i].pages : may;
        parent->kept[sizes[i].pack] = parent->all_kept = false;
    }
    return 0;
}

static int look_at_packs(struct fl_parent *parent)
{
    uint32_t count = parent->image->header.packs;
    FL_AUTO_FREE uint64_t *pages_of = calloc(count + 1, sizeof(*pages_of));
    parent->ids = calloc(count + 1, sizeof(*parent->ids));
    parent->use = calloc(count + 1, sizeof(*parent->use));
    parent->kept = calloc(count + 1, sizeof(*parent->kept));
    if (!pages_of || !parent->ids || !parent->use || !parent->kept)
        return -ENOMEM;
    int r = count_use(parent, pages_of);
    return r < 0 ? r : choose_packs(parent, pages_of);
}

int fl_parent_open(struct fl_store *store, const char *name, const uint8_t *content_id,
                   struct fl_parent **ret_parent, struct fl_error *ret_error)
{
    struct fl_parent *parent = calloc(1, sizeof(*parent));
    if (!parent)
        return fl_fail(ret_error, -ENOMEM, "cannot open image '%s'", name);
    int r = fl_image_open(store->reader, name, &parent->image);
    if (r < 0) {
        fl_parent_free(parent);
        return fl_image_failed(store, name, r, ret_error);
    }
    if (memcmp(fl_image_content_id(parent->image), content_id, FL_IDENTITY_BYTES) != 0)
        r = fl_fail_plain(
            ret_error, -ESTALE,
            "image '%s' of the store %s was replaced: it no longer has the pages that "
            "the VM began with",
            name, store->dir);
    if (r == 0) {
        r = look_at_packs(parent);
        if (r < 0)
            r = fl_fail(ret_error, r, "cannot open image '%s'", name);
    }
    if (r < 0)
        fl_parent_free(parent);
    else
        *ret_parent = parent;
    return r;
}

void fl_parent_free(struct fl_parent *parent)
{
    if (!parent)
        return;
    for (uint32_t i = 0; parent->use && i < parent->image->header.packs; i++)
        free(parent->use[i]);
    free(parent->use);
    free(parent->ids);
    free(parent->kept);
    fl_image_unref(parent->image);
    free(parent);
}

// --- pages and identities ---

int fl_parent_read_page(const struct fl_parent *parent, uint64_t page, struct fl_share_room *room,
                        uint8_t *ret_page)
{
    uint64_t entry = fl_parent_entry(parent, page);
    int r = fl_pack_read_frame(fl_parent_pack(parent, entry), fl_entry_frame(entry), room->pages);
    if (r == 0)
        memcpy(ret_page, room->pages + (size_t)fl_entry_slot(entry) * FL_PAGE_SIZE, FL_PAGE_SIZE);
    return r;
}

static const struct fl_identity *find_identity(const struct fl_parent_identities *identities,
                                               uint32_t pack, uint64_t number)
{
    for (unsigned i = 0; i < FL_IDENTITY_WINDOWS; i++) {
        const struct fl_identity_window *window = &identities->window[i];
        if (window->pack == pack && number - window->first < window->count)
            return &window->identity[number - window->first];
    }
    return NULL;
}

// Reads the identities from this page of the pack on.
static int read_window(const struct fl_parent *parent, uint64_t entry, uint64_t number,
                       struct fl_parent_identities *identities)
{
    const struct fl_pack *pack = fl_parent_pack(parent, entry);
    uint64_t left = fl_pack_pages(pack) - number;
    uint32_t count = left < FL_IDENTITY_WINDOW ? (uint32_t)left : FL_IDENTITY_WINDOW;
    struct fl_identity_window *window =
        &identities->window[identities->next++ % FL_IDENTITY_WINDOWS];
    window->count = 0;
    int r = fl_pack_read_identities(pack, fl_entry_frame(entry), fl_entry_slot(entry), count,
                                    window->identity);
    if (r < 0)
        return r;
    window->pack = fl_entry_pack(entry);
    window->first = number;
    window->count = count;
    return 0;
}

static int read_identities(const struct fl_parent *parent, uint64_t first, uint32_t count,
                           struct fl_parent_identities *identities,
                           struct fl_identity *ret_identities)
{
    uint64_t place = 0;
    uint64_t number = 0; // of the first page of the frame at `place`
    for (uint32_t i = 0; i < count; i++) {
        uint64_t entry = fl_parent_entry(parent, first + i);
        if (entry == 0) {
            ret_identities[i] = fl_zero_identity;
            continue;
        }
        uint32_t slot = fl_entry_slot(entry);
        int r = 0;
        if (fl_entry_place(entry) != place)
            r = fl_pack_page_number(fl_parent_pack(parent, entry), fl_entry_frame(entry), 0,
                                    &number);
        place = fl_entry_place(entry);
        const struct fl_identity *found =
            r == 0 ? find_identity(identities, fl_entry_pack(entry), number + slot) : NULL;
        if (r == 0 && !found) {
            r = read_window(parent, entry, number + slot, identities);
            found = find_identity(identities, fl_entry_pack(entry), number + slot);
        }
        if (r < 0)
            return r;
        ret_identities[i] = *found;
    }
    return 0;
}

int fl_parent_look(const struct fl_parent *parent, struct fl_chunk *chunk,
                   struct fl_parent_identities *identities)
{
    uint64_t pages = parent->image->header.pages;
    uint64_t left = chunk->first_page < pages ? pages - chunk->first_page : 0;
    chunk->parent_pages = (uint32_t)(left < chunk->pages ? left : chunk->pages);
    int r = read_identities(parent, chunk->first_page, chunk->parent_pages, identities,
                            chunk->parent_identity);
    for (uint32_t page = 0; r == 0 && page < chunk->pages; page++) {
        if (chunk->known[page])
            chunk->identity[page] = chunk->parent_identity[page];
    }
    return r;
}

int fl_parent_check(const struct fl_parent *parent, uint64_t page, struct fl_hasher *hasher)
{
    struct fl_parent_identities windows = {.next = 0};
    struct fl_identity identities[FL_CHUNK_PAGES];
    struct fl_identity content;
    uint64_t pages = parent->image->header.pages;
    int r = 0;
    while (r == 0 && page < pages) {
        uint64_t left = pages - page;
        uint32_t step = left < FL_CHUNK_PAGES ? (uint32_t)left : FL_CHUNK_PAGES;
        r = read_identities(parent, page, step, &windows, identities);
        if (r == 0)
            r = fl_hash_update(hasher, identities, step * sizeof(identities[0]));
        page += step;
    }
    if (r == 0)
        r = fl_hash_finish(hasher, &content);
    if (r < 0)
        return r;
    return memcmp(&content, &parent->image->header.content_id, sizeof(content)) == 0 ? 0 : -EBADMSG;
}
