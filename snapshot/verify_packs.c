// SPDX-License-Identifier: Apache-2.0
#include "snapshot/verify_packs.h"

#include "snapshot/image.h"

static bool contains(const uint64_t *ids, size_t count, uint64_t id)
{
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

// Adds the packs of the named images. An image that cannot be opened is reported with the images.
static int packs_of(struct fl_store *store, const char *name, struct fl_pack_ids *ids)
{
    struct fl_image *image;
    if (fl_image_open(store->reader, name, &image) < 0)
        return 0;
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < image->header.packs; i++) {
        uint64_t id = fl_pack_id(image->packs[i]);
        if (!contains(ids->ids, ids->count, id))
            r = fl_pack_ids_add(ids, id);
    }
    fl_image_unref(image);
    return r;
}

int fl_verify_choose_packs(struct fl_store *store, const struct fl_verify_options *options,
                           struct fl_pack_ids *ids)
{
    if (!options->names)
        return fl_pack_ids_list(store->packs_fd, ids);
    int r = 0;
    for (size_t i = 0; r == 0 && i < options->names_count; i++)
        r = packs_of(store, options->names[i], ids);
    return r;
}
