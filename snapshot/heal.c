// SPDX-License-Identifier: Apache-2.0
//
// Finds what is wanted: the pages of bad frames that images refer to.
#include "snapshot/heal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/image.h"
#include "snapshot/io.h"
#include "snapshot/publish.h"

// The slots of a bad frame that images refer to.
struct slots {
    uint64_t word[FL_FRAME_PAGES_MAX / 64];
};

struct walk {
    struct fl_heal *heal;
    struct slots *slots; // one for each bad frame
};

static int add_image(struct fl_heal *heal, const char *name, uint64_t bad_pages, int error)
{
    if (heal->images_count == heal->images_room) {
        size_t room = heal->images_room ? heal->images_room * 2 : 16;
        struct fl_heal_image *grown = realloc(heal->images, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        heal->images = grown;
        heal->images_room = room;
    }
    struct fl_heal_image *image = &heal->images[heal->images_count++];
    *image = (struct fl_heal_image){.bad_pages = bad_pages, .left = bad_pages, .error = error};
    strncpy(image->name, name, sizeof(image->name) - 1);
    return 0;
}

static void mark_slots(struct slots *slots, const struct fl_run *run)
{
    for (uint32_t slot = run->slot; slot < run->slot + run->pages; slot++)
        slots->word[slot / 64] |= UINT64_C(1) << slot % 64;
}

static int walk_image(void *arg, const char *name)
{
    struct walk *walk = arg;
    struct fl_heal *heal = walk->heal;
    struct fl_image *image;
    uint64_t bad_pages = 0;
    int r = fl_image_open(heal->store->reader, name, &image);
    if (r == -ENOENT) // removed a moment ago
        return 0;
    if (r < 0)
        return add_image(heal, name, 0, r);
    for (uint64_t page = 0; page < image->entries;) {
        struct fl_run run = fl_image_run(image, page, FL_FRAME_PAGES_MAX);
        const struct fl_frame_id *id = run.zero ? NULL : fl_bad_frames_find(&heal->bad, run.id);
        if (id) {
            mark_slots(&walk->slots[id - heal->bad.ids], &run);
            bad_pages += run.pages;
        }
        page += run.pages;
    }
    fl_image_unref(image);
    return bad_pages > 0 ? add_image(heal, name, bad_pages, 0) : 0;
}

static uint64_t count_slots(const struct slots *slots, size_t frames)
{
    uint64_t count = 0;
    for (size_t i = 0; i < frames; i++) {
        for (uint32_t word = 0; word < FL_FRAME_PAGES_MAX / 64; word++)
            count += (uint64_t)__builtin_popcountll(slots[i].word[word]);
    }
    return count;
}

// Adds the wanted pages of one bad frame. If the table of identities is bad, too, it is not known
// what these pages were.
static void list_frame(struct fl_heal *heal, const struct slots *slots, uint32_t frame,
                       const struct fl_pack *pack)
{
    for (uint32_t slot = 0; slot < FL_FRAME_PAGES_MAX; slot++) {
        if (!(slots->word[slot / 64] >> slot % 64 & 1))
            continue;
        struct fl_heal_page *page = &heal->pages[heal->count++];
        *page = (struct fl_heal_page){.frame = frame, .slot = (uint16_t)slot};
        page->known = pack && fl_pack_read_identities(pack, heal->bad.ids[frame].frame, slot, 1,
                                                      &page->identity) == 0;
    }
}

static bool slots_empty(const struct slots *slots)
{
    return count_slots(slots, 1) == 0;
}

static struct fl_pack *open_if_identities_good(struct fl_heal *heal, uint64_t id)
{
    struct fl_pack *pack;
    if (fl_pack_open(heal->store->reader->registry, id, &pack) < 0)
        return NULL;
    if (fl_pack_check_identities(pack) == 0)
        return pack;
    fl_pack_unref(pack);
    return NULL;
}

static int list_pages(struct walk *walk)
{
    struct fl_heal *heal = walk->heal;
    struct fl_pack *pack = NULL;
    uint64_t room = count_slots(walk->slots, heal->bad.count);
    uint64_t open_id = 0;
    heal->pages = calloc(room ? room : 1, sizeof(*heal->pages));
    if (!heal->pages)
        return -ENOMEM;
    for (uint32_t i = 0; i < heal->bad.count; i++) {
        struct fl_frame_id id = heal->bad.ids[i];
        if (slots_empty(&walk->slots[i]))
            continue;
        if (id.pack != open_id) {
            if (pack)
                fl_pack_unref(pack);
            pack = open_if_identities_good(heal, id.pack);
            open_id = id.pack;
        }
        list_frame(heal, &walk->slots[i], i, pack);
    }
    if (pack)
        fl_pack_unref(pack);
    return 0;
}

static int compare_identities(const void *a, const void *b)
{
    const struct fl_heal_page *left = *(struct fl_heal_page *const *)a;
    const struct fl_heal_page *right = *(struct fl_heal_page *const *)b;
    return memcmp(&left->identity, &right->identity, sizeof(left->identity));
}

static int sort_identities(struct fl_heal *heal)
{
    heal->missing = heal->count;
    heal->by_identity = calloc(heal->count ? heal->count : 1, sizeof(*heal->by_identity));
    if (!heal->by_identity)
        return -ENOMEM;
    for (uint64_t i = 0; i < heal->count; i++) {
        if (heal->pages[i].known)
            heal->by_identity[heal->by_identity_count++] = &heal->pages[i];
    }
    if (heal->by_identity_count > 1)
        qsort(heal->by_identity, heal->by_identity_count, sizeof(*heal->by_identity),
              compare_identities);
    return 0;
}

static int find_wanted(struct fl_heal *heal)
{
    FL_AUTO_FREE struct slots *slots = calloc(heal->bad.count + 1, sizeof(*slots));
    struct walk walk = {.heal = heal, .slots = slots};
    if (!slots)
        return -ENOMEM;
    int r = fl_reader_list(heal->store->reader, walk_image, &walk);
    if (r == 0)
        r = list_pages(&walk);
    return r < 0 ? r : sort_identities(heal);
}

static int copy_bad(const struct fl_bad_frames *bad, struct fl_bad_frames *ret_copy)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < bad->count; i++)
        r = fl_bad_frames_add(ret_copy, bad->ids[i]);
    return r;
}

int fl_heal_new(struct fl_store *store, const struct fl_bad_frames *bad, bool dry_run,
                const struct fl_progress *progress, struct fl_heal **ret_heal)
{
    struct fl_heal *heal = calloc(1, sizeof(*heal));
    if (!heal)
        return -ENOMEM;
    heal->store = store;
    heal->progress = progress;
    heal->dry_run = dry_run;
    heal->scratch_fd = -1;
    heal->room = fl_map_memory((size_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE);
    int r = heal->room ? fl_hasher_new(&heal->hasher) : -ENOMEM;
    if (r == 0)
        r = copy_bad(bad, &heal->bad);
    if (r == 0)
        r = find_wanted(heal);
    if (r == 0 && !dry_run && heal->count > 0)
        r = fl_scratch_create(store->tmp_fd, &heal->scratch_fd);
    if (r < 0) {
        fl_heal_free(heal);
        return r;
    }
    *ret_heal = heal;
    return 0;
}

void fl_heal_free(struct fl_heal *heal)
{
    if (!heal)
        return;
    fl_cleanup_close(&heal->scratch_fd);
    fl_hasher_free(heal->hasher);
    fl_unmap(heal->room, (size_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE);
    fl_bad_frames_free(&heal->bad);
    free(heal->pages);
    free(heal->by_identity);
    free(heal->images);
    free(heal);
}
