// SPDX-License-Identifier: Apache-2.0
#include "snapshot/pack_heal.h"

#include <stddef.h>

#include "snapshot/bad_list.h"
#include "snapshot/heal.h"

static int search_packs(struct fl_heal *heal, const uint64_t *packs, uint32_t count)
{
    int r = fl_heal_from_frames(heal);
    for (uint32_t i = 0; r == 0 && heal->missing > 0 && i < count; i++) {
        struct fl_pack *pack;
        if (fl_pack_open(heal->store->reader->registry, packs[i], &pack) < 0)
            continue;
        r = fl_heal_from_pack(heal, pack);
        fl_pack_unref(pack);
    }
    return r;
}

static void count_images(const struct fl_heal *heal, struct fl_pack_result *result)
{
    result->healed_images = heal->images_healed;
    for (size_t i = 0; i < heal->images_count; i++)
        result->damaged_images += heal->images[i].left > 0 || heal->images[i].error < 0;
}

void fl_pack_heal(struct fl_store *store, const uint64_t *packs, uint32_t count,
                  struct fl_pack_result *result)
{
    struct fl_bad_frames bad = {.ids = NULL};
    struct fl_heal *heal = NULL;
    int r = fl_bad_list_load(store, FL_BAD_ONLY_NEEDED, &bad);
    if (r == 0 && bad.count > 0)
        r = fl_heal_new(store, &bad, false, NULL, &heal);
    if (r == 0 && heal) {
        r = search_packs(heal, packs, count);
        if (r == 0)
            r = fl_heal_publish(heal);
        count_images(heal, result);
        result->bad_not_noted |= fl_heal_note(heal) < 0;
    }
    fl_heal_free(heal);
    fl_bad_frames_free(&bad);
}
