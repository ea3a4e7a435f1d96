// SPDX-License-Identifier: Apache-2.0
#include "snapshot/needed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool fl_needed_bit(const uint64_t *bits, uint64_t page)
{
    return bits[page / 64] >> page % 64 & 1;
}

uint32_t fl_needed_count(const uint64_t *bits, uint64_t first, uint32_t count)
{
    uint32_t needed = 0;
    for (uint32_t i = 0; i < count; i++)
        needed += fl_needed_bit(bits, first + i);
    return needed;
}

// The index of the pack, or of the one that it would stand before.
static size_t position(const struct fl_needed *needed, uint64_t id)
{
    size_t low = 0;
    size_t high = needed->packs_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (needed->packs[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct fl_needed_pack *fl_needed_pack(const struct fl_needed *needed, uint64_t id)
{
    size_t at = position(needed, id);
    return at < needed->packs_count && needed->packs[at]->id == id ? needed->packs[at] : NULL;
}

static struct fl_needed_pack *new_pack(const struct fl_pack *pack)
{
    struct fl_needed_pack *added = calloc(1, sizeof(*added));
    if (!added)
        return NULL;
    added->id = fl_pack_id(pack);
    added->total = fl_pack_pages(pack);
    added->bytes = fl_pack_file_bytes(pack);
    added->bits = calloc(added->total / 64 + 1, sizeof(*added->bits));
    if (!added->bits) {
        free(added);
        return NULL;
    }
    return added;
}

static int add_pack(struct fl_needed *needed, const struct fl_pack *pack)
{
    size_t at = position(needed, fl_pack_id(pack));
    if (at < needed->packs_count && needed->packs[at]->id == fl_pack_id(pack))
        return 0;
    if (needed->packs_count == needed->packs_room) {
        size_t room = needed->packs_room ? 2 * needed->packs_room : 64;
        struct fl_needed_pack **grown = realloc(needed->packs, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        needed->packs = grown;
        needed->packs_room = room;
    }
    struct fl_needed_pack *added = new_pack(pack);
    if (!added)
        return -ENOMEM;
    memmove(&needed->packs[at + 1], &needed->packs[at],
            (needed->packs_count - at) * sizeof(needed->packs[0]));
    needed->packs[at] = added;
    needed->packs_count++;
    return 0;
}

static int add_image(struct fl_needed *needed, const struct fl_image *image, const char *name)
{
    if (needed->images_count == needed->images_room) {
        size_t room = needed->images_room ? 2 * needed->images_room : 16;
        struct fl_needed_image *grown = realloc(needed->images, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        needed->images = grown;
        needed->images_room = room;
    }
    struct fl_needed_image *added = &needed->images[needed->images_count];
    *added = (struct fl_needed_image){.packs_count = image->header.packs};
    added->packs = malloc((image->header.packs + 1) * sizeof(*added->packs));
    if (!added->packs)
        return -ENOMEM;
    needed->images_count++;
    strncpy(added->name, name, sizeof(added->name) - 1);
    for (uint32_t i = 0; i < image->header.packs; i++)
        added->packs[i] = fl_pack_id(image->packs[i]);
    return 0;
}

static int mark_page(const struct fl_image *image, struct fl_needed_pack *const *packs,
                     uint64_t entry)
{
    uint32_t at = fl_entry_pack(entry);
    uint64_t page;
    int r =
        fl_pack_page_number(image->packs[at], fl_entry_frame(entry), fl_entry_slot(entry), &page);
    if (r < 0 || fl_needed_bit(packs[at]->bits, page))
        return r;
    packs[at]->bits[page / 64] |= UINT64_C(1) << page % 64;
    packs[at]->pages++;
    return 0;
}

static int mark_image(struct fl_needed *needed, const struct fl_image *image)
{
    struct fl_needed_pack **packs = calloc(image->header.packs + 1, sizeof(*packs));
    int r = packs ? 0 : -ENOMEM;
    for (uint32_t i = 0; r == 0 && i < image->header.packs; i++) {
        r = add_pack(needed, image->packs[i]);
        packs[i] = fl_needed_pack(needed, fl_pack_id(image->packs[i]));
    }
    for (uint64_t page = 0; r == 0 && (page = fl_image_skip_zero(image, page)) < image->entries;
         page++) {
        uint64_t entry = fl_image_entry(image, page);
        if (entry != 0)
            r = mark_page(image, packs, entry);
    }
    free(packs);
    return r;
}

struct walk {
    struct fl_store *store;
    struct fl_needed *needed;
};

static int walk_image(void *arg, const char *name)
{
    const struct walk *walk = arg;
    struct fl_needed *needed = walk->needed;
    struct fl_image *image;
    int r = fl_image_open(walk->store->reader, name, &image);
    if (r == -ENOENT) // removed a moment ago
        return 0;
    if (r < 0) {
        strncpy(needed->unreadable, name, sizeof(needed->unreadable) - 1);
        needed->unreadable_error = r;
        needed->unreadable_count++;
        return 0;
    }
    r = add_image(needed, image, name);
    if (r == 0)
        r = mark_image(needed, image);
    fl_image_unref(image);
    return r;
}

int fl_needed_find(struct fl_store *store, struct fl_needed *ret_needed)
{
    struct walk walk = {.store = store, .needed = ret_needed};
    return fl_reader_list(store->reader, walk_image, &walk);
}

void fl_needed_free(struct fl_needed *needed)
{
    for (size_t i = 0; i < needed->packs_count; i++) {
        free(needed->packs[i]->bits);
        free(needed->packs[i]);
    }
    for (size_t i = 0; i < needed->images_count; i++)
        free(needed->images[i].packs);
    free(needed->packs);
    free(needed->images);
    *needed = (struct fl_needed){.packs = NULL};
}
