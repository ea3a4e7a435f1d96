// SPDX-License-Identifier: Apache-2.0
#include "snapshot/image_rewrite.h"

#include <errno.h>
#include <stdlib.h>

#include "snapshot/image_tail.h"
#include "snapshot/image_writer.h"
#include "snapshot/io.h"

struct table {
    uint64_t *pack_ids;
    uint32_t packs;
};

// Lists the packs that are needed: the old ones in the order of their first use, then the new ones.
static int renumber_packs(const struct fl_image *old, uint64_t *map, const uint64_t *new_pack_ids,
                          uint32_t new_packs, struct table *table)
{
    uint32_t packs = old->header.packs;
    size_t all = (size_t)packs + new_packs;
    FL_AUTO_FREE uint32_t *number = calloc(all + 1, sizeof(*number)); // 1 + it
    FL_AUTO_FREE bool *used = calloc(all + 1, sizeof(*used));
    table->pack_ids = malloc((all + 1) * sizeof(*table->pack_ids));
    if (!number || !used || !table->pack_ids)
        return -ENOMEM;
    uint64_t pages = old->entries;
    for (uint64_t page = 0; (page = fl_image_skip_zero(old, page)) < pages; page++) {
        uint32_t pack = fl_entry_pack(map[page]);
        if (map[page] == 0 || used[pack])
            continue;
        used[pack] = true;
        if (pack < packs) {
            table->pack_ids[table->packs] = fl_pack_id(old->packs[pack]);
            number[pack] = ++table->packs;
        }
    }
    for (uint32_t i = 0; i < new_packs; i++) {
        if (used[packs + i]) {
            table->pack_ids[table->packs] = new_pack_ids[i];
            number[packs + i] = ++table->packs;
        }
    }
    for (uint64_t page = 0; (page = fl_image_skip_zero(old, page)) < pages; page++) {
        uint64_t entry = map[page];
        if (entry != 0)
            map[page] = fl_entry(number[fl_entry_pack(entry)] - 1, fl_entry_frame(entry),
                                 fl_entry_slot(entry));
    }
    return 0;
}

// Takes the map over.
static int open_image(struct fl_store *store, const struct fl_image *old, uint64_t *map,
                      const struct table *table, struct fl_image **ret_image)
{
    struct fl_disk_image_header header = old->header;
    struct fl_pack **packs = calloc((size_t)table->packs + 1, sizeof(struct fl_pack *));
    int r = packs ? 0 : -ENOMEM;
    header.packs = 0;
    while (r == 0 && header.packs < table->packs) {
        r = fl_pack_open(store->reader->registry, table->pack_ids[header.packs],
                         &packs[header.packs]);
        header.packs += r == 0;
    }
    if (r == 0)
        return fl_image_new(&header, old->entries, map, packs, ret_image);
    while (header.packs > 0)
        fl_pack_unref(packs[--header.packs]);
    free(packs);
    fl_unmap(map, old->entries * sizeof(*map));
    return r;
}

int fl_image_rewrite(struct fl_store *store, const struct fl_image *old, uint64_t *map,
                     const uint64_t *new_pack_ids, uint32_t new_packs, struct fl_image **ret_image)
{
    struct table table = {.pack_ids = NULL};
    // The indices after the table's end have to be ones that an entry can hold.
    int r = old->header.packs <= FL_IMAGE_PACKS_MAX - new_packs
                ? renumber_packs(old, map, new_pack_ids, new_packs, &table)
                : -EOVERFLOW;
    if (r == 0)
        r = open_image(store, old, map, &table, ret_image);
    else
        fl_unmap(map, old->entries * sizeof(*map));
    free(table.pack_ids);
    return r;
}

// Call it with the names locked: then another process removes or replaces the image before or after
// this, never between the look and the rename.
static int publish_in_place(struct fl_store *store, const struct fl_image *old,
                            struct fl_image_writer *writer, const struct fl_image *image,
                            const uint64_t *pack_ids, uint64_t *ret_bytes)
{
    struct fl_disk_image_header header = image->header;
    struct fl_image_tail tail = {.about = NULL};
    int r = fl_image_tail_read(old, &tail);
    if (r == 0)
        r = fl_store_lock_names(store);
    if (r < 0) {
        fl_image_tail_free(&tail);
        return r;
    }
    if (fl_image_still_published(store->reader, old))
        r = fl_image_writer_publish(writer, &header, pack_ids, &tail, store->reader->images_fd,
                                    true, ret_bytes);
    else
        r = -ESTALE;
    fl_store_unlock_names(store);
    fl_image_tail_free(&tail);
    return r;
}

// A piece that is all zero in the old map is so in the new one, which is all in memory.
static int append_map(struct fl_image_writer *writer, const struct fl_image *old,
                      const struct fl_image *image)
{
    uint64_t pages = image->entries;
    const uint64_t *entries = image->map.memory;
    int r = 0;
    for (uint64_t page = 0; r == 0 && page < pages; page += FL_PIECE_ENTRIES) {
        uint64_t next = fl_image_skip_zero(old, page);
        uint64_t left = pages - next;
        r = fl_image_writer_append_zero(writer, next - page);
        if (r == 0)
            r = fl_image_writer_append(writer, entries + next,
                                       left < FL_PIECE_ENTRIES ? left : FL_PIECE_ENTRIES);
        page = next;
    }
    return r;
}

int fl_image_replace(struct fl_store *store, const struct fl_image *old,
                     const struct fl_image *image, uint64_t *ret_bytes)
{
    struct fl_image_writer *writer = NULL;
    FL_AUTO_FREE uint64_t *pack_ids = malloc(((size_t)image->header.packs + 1) * sizeof(*pack_ids));
    if (!pack_ids)
        return -ENOMEM;
    for (uint32_t i = 0; i < image->header.packs; i++)
        pack_ids[i] = fl_pack_id(image->packs[i]);
    int r = fl_image_writer_new(store->tmp_fd, &writer);
    if (r == 0)
        r = append_map(writer, old, image);
    if (r == 0)
        r = publish_in_place(store, old, writer, image, pack_ids, ret_bytes);
    fl_image_writer_free(writer);
    return r;
}
