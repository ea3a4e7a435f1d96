// SPDX-License-Identifier: Apache-2.0
#include "snapshot/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/io.h"

// The slots of the frame that an entry points to; 0 if it is no entry or points nowhere.
static uint32_t slots_at(const struct fl_image *image, uint64_t entry)
{
    if (!(entry & FL_ENTRY_STORED) || entry & FL_ENTRY_UNUSED ||
        fl_entry_pack(entry) >= image->header.packs)
        return 0;
    return fl_pack_frame_pages(image->packs[fl_entry_pack(entry)], fl_entry_frame(entry));
}

// Every entry of the map, once, so that fl_image_run can trust them all. Neighbours mostly share
// their frame, so that it is looked up once a frame and not once a page.
static int check_map(const struct fl_image *image)
{
    uint64_t place = 0;
    uint32_t slots = 0;
    for (uint64_t page = 0; page < image->header.pages; page++) {
        uint64_t entry = image->map[page];
        if (entry == 0)
            continue;
        if (fl_entry_place(entry) != place) {
            place = fl_entry_place(entry);
            slots = slots_at(image, entry);
        }
        if (fl_entry_slot(entry) >= slots)
            return -EBADMSG;
    }
    return 0;
}

static int compare_packs(const void *a, const void *b)
{
    uint64_t left = fl_pack_id(*(struct fl_pack *const *)a);
    uint64_t right = fl_pack_id(*(struct fl_pack *const *)b);
    return left < right ? -1 : left > right;
}

static int sort_packs(struct fl_image *image)
{
    uint32_t packs = image->header.packs;
    image->by_id = malloc((packs ? packs : 1) * sizeof(struct fl_pack *));
    if (!image->by_id)
        return -ENOMEM;
    if (packs > 0) {
        memcpy(image->by_id, image->packs, packs * sizeof(struct fl_pack *));
        qsort(image->by_id, packs, sizeof(struct fl_pack *), compare_packs);
    }
    return 0;
}

static void image_free(struct fl_image *image)
{
    for (uint32_t i = 0; i < image->header.packs; i++)
        fl_pack_unref(image->packs[i]);
    fl_unmap(image->map, image->header.pages * sizeof(*image->map));
    free(image->packs);
    free(image->by_id);
    fl_cleanup_close(&image->fd);
    free(image);
}

// The header of a raw file has no content id.
static struct fl_image_id id_of(const struct fl_disk_image_header *header)
{
    static const struct fl_identity none;
    static atomic_uint_fast64_t last;
    struct fl_image_id id = {{0}};
    if (memcmp(&header->content_id, &none, sizeof(none)) == 0)
        id.word[0] = atomic_fetch_add(&last, 1) + 1;
    else
        memcpy(id.word, header->content_id.bytes, sizeof(id.word));
    return id;
}

int fl_image_new(const struct fl_disk_image_header *header, uint64_t *map, struct fl_pack **packs,
                 struct fl_image **ret_image)
{
    struct fl_image *image = calloc(1, sizeof(*image));
    if (!image) {
        for (uint32_t i = 0; i < header->packs; i++)
            fl_pack_unref(packs[i]);
        fl_unmap(map, header->pages * sizeof(*map));
        free(packs);
        return -ENOMEM;
    }
    atomic_init(&image->refs, 1);
    image->fd = -1;
    image->header = *header;
    image->id = id_of(header);
    image->map = map;
    image->packs = packs;
    int r = check_map(image);
    if (r == 0)
        r = sort_packs(image);
    if (r < 0) {
        image_free(image);
        return r;
    }
    *ret_image = image;
    return 0;
}

struct fl_image *fl_image_ref(struct fl_image *image)
{
    // Relaxed: who takes a reference already has one, so nothing is handed over here.
    atomic_fetch_add_explicit(&image->refs, 1, memory_order_relaxed);
    return image;
}

void fl_image_unref(struct fl_image *image)
{
    // Release pairs with the acquire of whoever drops the last one: all uses are over before the
    // free.
    if (image && atomic_fetch_sub_explicit(&image->refs, 1, memory_order_acq_rel) == 1)
        image_free(image);
}

struct fl_image_id fl_image_id(const struct fl_image *image)
{
    return image->id;
}

const char *fl_image_name(const struct fl_image *image)
{
    return image->header.name;
}

uint64_t fl_image_bytes(const struct fl_image *image)
{
    return image->header.bytes;
}

uint64_t fl_image_pages(const struct fl_image *image)
{
    return image->header.pages;
}

const uint8_t *fl_image_content_id(const struct fl_image *image)
{
    return image->fd < 0 ? NULL : image->header.content_id.bytes;
}

static uint32_t zero_run(const uint64_t *entry, uint32_t limit)
{
    uint32_t n = 1;
    while (n < limit && entry[n] == 0)
        n++;
    return n;
}

static uint32_t stored_run(const uint64_t *entry, uint32_t limit)
{
    uint64_t place = fl_entry_place(entry[0]);
    uint32_t n = 1;
    if (limit == 1)
        return 1;
    // The number after a frame's slot 511 is the next frame's slot 0: not the same place.
    while (n < limit && entry[n] == entry[0] + n && fl_entry_place(entry[n]) == place)
        n++;
    return n;
}

struct fl_run fl_image_run(const struct fl_image *image, uint64_t page, uint32_t max_pages)
{
    uint64_t left = image->header.pages - page;
    uint32_t limit = left < max_pages ? (uint32_t)left : max_pages;
    const uint64_t *entry = image->map + page;
    if (*entry == 0)
        return (struct fl_run){.pages = zero_run(entry, limit), .zero = true};
    return (struct fl_run){
        .pages = stored_run(entry, limit),
        .slot = fl_entry_slot(*entry),
        .id = {.pack = fl_pack_id(image->packs[fl_entry_pack(*entry)]),
               .frame = fl_entry_frame(*entry)},
    };
}

static const struct fl_pack *find_pack(const struct fl_image *image, uint64_t id)
{
    uint32_t low = 0;
    uint32_t high = image->header.packs;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        uint64_t at = fl_pack_id(image->by_id[middle]);
        if (at == id)
            return image->by_id[middle];
        if (at < id)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

uint32_t fl_frame_pages(const struct fl_image *image, struct fl_frame_id id)
{
    const struct fl_pack *pack = find_pack(image, id.pack);
    return pack ? fl_pack_frame_pages(pack, id.frame) : 0;
}

int fl_frame_read(const struct fl_image *image, struct fl_frame_id id, void *buf)
{
    const struct fl_pack *pack = find_pack(image, id.pack);
    return pack ? fl_pack_read_frame(pack, id.frame, buf) : -EINVAL;
}

int fl_frame_place(const struct fl_image *image, struct fl_frame_id id,
                   struct fl_frame_place *ret_place)
{
    const struct fl_pack *pack = find_pack(image, id.pack);
    return pack ? fl_pack_frame_place(pack, id.frame, ret_place) : -EINVAL;
}

int fl_frame_unpack(const struct fl_image *image, struct fl_frame_id id, const void *stored,
                    void *buf)
{
    const struct fl_pack *pack = find_pack(image, id.pack);
    return pack ? fl_pack_unpack_frame(pack, id.frame, stored, buf) : -EINVAL;
}
