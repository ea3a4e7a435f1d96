// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A page that is stored somewhere already is a hit. The hits of a chunk are
// grouped by the frame that they are in, and the groups are sorted by size. The largest groups are
// accepted, up to FL_FOREIGN_FRAMES_MAX; the pages of all others are declined, that is, stored
// again beside their neighbours. A hit in a pack of an earlier run comes from the index, which is
// only a hint: it counts after the frame was read (share_check.c) and the pack's own table has the
// same identity at that place.
#include "snapshot/dedup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/hits.h"
#include "snapshot/seen.h"

struct known_pack {
    struct fl_pack *pack; // NULL: the index names it, but it is gone or damaged
    uint32_t table_index; // in the image's pack table; UNLISTED
    bool reserved;        // room in the table is kept for it
};
#define UNLISTED UINT32_MAX

struct fl_dedup {
    struct fl_registry *registry;
    struct fl_seen *seen;
    uint64_t own_id;
    uint32_t next_frame; // of the own pack
    struct fl_dedup_counts counts;

    uint64_t table[FL_FOREIGN_PACKS_MAX + 1]; // the image's pack table
    uint32_t table_count;
    uint32_t own_index; // in it; UNLISTED before the first use

    uint32_t reserved; // packs that are not listed yet, and have room kept for them
    const uint64_t *parent_ids;
    uint32_t *parent_index; // of each of parent_ids in the table; UNLISTED

    // Every pack that an entry of the index has named, so that none is opened twice. known_ids[i]
    // is the id of known[i].
    struct known_pack *known;
    uint64_t *known_ids;
    uint32_t known_count, known_room;

    // The rest is about the present chunk.
    bool accepted[FL_CHUNK_PAGES];
    bool hit_page[FL_CHUNK_PAGES];
    struct fl_hit hits[FL_CHUNK_PAGES];
    uint32_t hits_count;
    struct fl_hit_group groups[FL_CHUNK_PAGES];
    uint32_t groups_count;
};

int fl_dedup_new(struct fl_registry *registry, uint64_t own_pack_id, struct fl_dedup **ret_dedup)
{
    struct fl_dedup *dedup = calloc(1, sizeof(*dedup));
    if (!dedup)
        return -ENOMEM;
    dedup->registry = registry;
    dedup->own_id = own_pack_id;
    dedup->own_index = UNLISTED;
    int r = fl_seen_new(&dedup->seen);
    if (r < 0) {
        free(dedup);
        return r;
    }
    *ret_dedup = dedup;
    return 0;
}

void fl_dedup_free(struct fl_dedup *dedup)
{
    if (!dedup)
        return;
    for (uint32_t i = 0; i < dedup->known_count; i++) {
        if (dedup->known[i].pack)
            fl_pack_unref(dedup->known[i].pack);
    }
    free(dedup->known);
    free(dedup->known_ids);
    free(dedup->parent_index);
    fl_seen_free(dedup->seen);
    free(dedup);
}

struct fl_dedup_counts fl_dedup_counts(const struct fl_dedup *dedup)
{
    return dedup->counts;
}

const uint64_t *fl_dedup_packs(const struct fl_dedup *dedup, uint32_t *ret_count)
{
    *ret_count = dedup->table_count;
    return dedup->table;
}

const uint64_t *fl_dedup_table(const struct fl_dedup *dedup)
{
    return dedup->table;
}

static void collect_hits(struct fl_dedup *dedup, const struct fl_chunk *chunk)
{
    dedup->hits_count = 0;
    for (uint32_t page = 0; page < chunk->pages; page++) {
        struct fl_hit hit = {.page = (uint16_t)page};
        uint32_t slot;
        dedup->accepted[page] = chunk->inherited[page] != 0;
        dedup->hit_page[page] = chunk->known[page];
        if (chunk->zero[page] || chunk->inherited[page] != 0)
            continue;
        if (fl_seen_get(dedup->seen, &chunk->identity[page], &hit.id.frame, &slot)) {
            hit.id.pack = dedup->own_id;
            hit.slot = (uint16_t)slot;
        } else if (!chunk->checked[page]) {
            dedup->hit_page[page] |= chunk->hint[page].pack_id != 0;
        } else {
            hit.id.pack = chunk->hint[page].pack_id;
            hit.id.frame = chunk->hint[page].frame;
            hit.slot = chunk->hint[page].slot;
        }
        if (hit.id.pack != 0)
            dedup->hits[dedup->hits_count++] = hit;
    }
}

static int grow_known(struct fl_dedup *dedup)
{
    if (dedup->known_count < dedup->known_room)
        return 0;
    uint32_t room = dedup->known_room ? dedup->known_room * 2 : 64;
    struct known_pack *known = realloc(dedup->known, room * sizeof(*known));
    if (known)
        dedup->known = known;
    uint64_t *ids = realloc(dedup->known_ids, room * sizeof(*ids));
    if (ids)
        dedup->known_ids = ids;
    if (!known || !ids)
        return -ENOMEM;
    dedup->known_room = room;
    return 0;
}

// Entries of a pack that cannot be opened are misses, whatever the reason is.
static int find_known(struct fl_dedup *dedup, uint64_t id, struct known_pack **ret_known)
{
    for (uint32_t i = 0; i < dedup->known_count; i++) {
        if (dedup->known_ids[i] == id) {
            *ret_known = &dedup->known[i];
            return 0;
        }
    }
    int r = grow_known(dedup);
    if (r < 0)
        return r;
    struct known_pack *known = &dedup->known[dedup->known_count];
    *known = (struct known_pack){.table_index = UNLISTED};
    if (fl_pack_open(dedup->registry, id, &known->pack) < 0)
        known->pack = NULL;
    dedup->known_ids[dedup->known_count++] = id;
    *ret_known = known;
    return 0;
}

static uint32_t list_pack(struct fl_dedup *dedup, uint64_t id)
{
    dedup->table[dedup->table_count] = id;
    return dedup->table_count++;
}

static void list_known(struct fl_dedup *dedup, struct known_pack *known, uint64_t id)
{
    known->table_index = list_pack(dedup, id);
    dedup->reserved -= known->reserved;
    known->reserved = false;
}

static uint32_t own_index(struct fl_dedup *dedup)
{
    if (dedup->own_index == UNLISTED)
        dedup->own_index = list_pack(dedup, dedup->own_id);
    return dedup->own_index;
}

// True if there is room for this foreign pack, with a place kept for the own pack.
static bool table_has_room(const struct fl_dedup *dedup, const struct known_pack *known)
{
    uint32_t foreign = dedup->table_count - (dedup->own_index != UNLISTED ? 1 : 0);
    return known->reserved || foreign + dedup->reserved < FL_FOREIGN_PACKS_MAX;
}

int fl_dedup_set_parent(struct fl_dedup *dedup, const uint64_t *ids, const bool *kept,
                        uint32_t count)
{
    dedup->parent_ids = ids;
    dedup->parent_index = malloc((count + 1) * sizeof(*dedup->parent_index));
    if (!dedup->parent_index)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        struct known_pack *known;
        dedup->parent_index[i] = UNLISTED;
        int r = kept[i] ? find_known(dedup, ids[i], &known) : 0;
        if (r < 0)
            return r;
        if (kept[i] && !known->reserved) {
            known->reserved = true;
            dedup->reserved++;
        }
    }
    return 0;
}

// Gives the page the place that the parent has for it.
static int inherit(struct fl_dedup *dedup, struct fl_chunk *chunk, uint32_t page)
{
    uint64_t entry = chunk->inherited[page];
    uint32_t *index = &dedup->parent_index[fl_entry_pack(entry)];
    if (*index == UNLISTED) {
        struct known_pack *known;
        uint64_t id = dedup->parent_ids[fl_entry_pack(entry)];
        int r = find_known(dedup, id, &known);
        if (r < 0)
            return r;
        if (known->table_index == UNLISTED && !table_has_room(dedup, known))
            return -EBADMSG;
        if (known->table_index == UNLISTED)
            list_known(dedup, known, id);
        *index = known->table_index;
    }
    chunk->entry[page] = fl_entry(*index, fl_entry_frame(entry), fl_entry_slot(entry));
    dedup->counts.shared++;
    dedup->counts.inherited++;
    return 0;
}

static int inherit_pages(struct fl_dedup *dedup, struct fl_chunk *chunk)
{
    int r = 0;
    for (uint32_t page = 0; r == 0 && chunk->inherited_pages > 0 && page < chunk->pages; page++) {
        if (chunk->inherited[page] != 0)
            r = inherit(dedup, chunk, page);
    }
    return r;
}

// Accepts the pages of the group that the pack really has; *ret_used says whether there was one.
static int accept_foreign(struct fl_dedup *dedup, struct fl_chunk *chunk,
                          const struct fl_hit_group *group, bool *ret_used)
{
    struct fl_identity identities[FL_FRAME_PAGES_MAX];
    const struct fl_hit *hits = &dedup->hits[group->first];
    struct known_pack *known;
    int r = find_known(dedup, hits->id.pack, &known);
    if (r < 0)
        return r;
    uint32_t slots = known->pack ? fl_pack_frame_pages(known->pack, hits->id.frame) : 0;
    if (slots == 0 ||
        fl_pack_read_identities(known->pack, hits->id.frame, 0, slots, identities) < 0)
        return 0;
    for (uint32_t i = 0; i < group->count; i++) {
        const struct fl_hit *hit = &hits[i];
        if (hit->slot >= slots ||
            memcmp(&identities[hit->slot], &chunk->identity[hit->page], sizeof(identities[0])) != 0)
            continue;
        dedup->hit_page[hit->page] = true;
        if (known->table_index == UNLISTED) {
            if (!table_has_room(dedup, known))
                continue;
            list_known(dedup, known, hit->id.pack);
        }
        chunk->entry[hit->page] = fl_entry(known->table_index, hit->id.frame, hit->slot);
        dedup->accepted[hit->page] = *ret_used = true;
        dedup->counts.shared++;
    }
    return 0;
}

static void accept_own(struct fl_dedup *dedup, struct fl_chunk *chunk,
                       const struct fl_hit_group *group)
{
    for (uint32_t i = 0; i < group->count; i++) {
        const struct fl_hit *hit = &dedup->hits[group->first + i];
        chunk->entry[hit->page] = fl_entry(own_index(dedup), hit->id.frame, hit->slot);
        dedup->accepted[hit->page] = true;
        dedup->counts.duplicate++;
    }
}

static void mark_declined(struct fl_dedup *dedup, const struct fl_hit_group *group)
{
    for (uint32_t i = 0; i < group->count; i++)
        dedup->hit_page[dedup->hits[group->first + i].page] = true;
}

static int accept_groups(struct fl_dedup *dedup, struct fl_chunk *chunk)
{
    uint32_t frames = 0;
    for (uint32_t i = 0; i < dedup->groups_count; i++) {
        const struct fl_hit_group *group = &dedup->groups[i];
        bool used = false;
        int r = 0;
        if (frames >= chunk->foreign_max)
            mark_declined(dedup, group);
        else if (dedup->hits[group->first].id.pack == dedup->own_id)
            accept_own(dedup, chunk, group), used = true;
        else
            r = accept_foreign(dedup, chunk, group, &used);
        if (r < 0)
            return r;
        frames += used;
    }
    return 0;
}

static void store_page(struct fl_dedup *dedup, struct fl_chunk *chunk, uint32_t page)
{
    uint32_t first_frame = dedup->next_frame;
    uint32_t frame;
    uint32_t slot;
    // The page is twice in this chunk: its frame is the chunk's own, which costs no fragmentation.
    if (fl_seen_get(dedup->seen, &chunk->identity[page], &frame, &slot) && frame >= first_frame) {
        chunk->entry[page] = fl_entry(own_index(dedup), frame, slot);
        dedup->counts.duplicate++;
        return;
    }
    uint32_t number = chunk->fresh_count++;
    frame = first_frame + number / FL_FRAME_PAGES;
    slot = number % FL_FRAME_PAGES;
    chunk->fresh[number] = (uint16_t)page;
    chunk->entry[page] = fl_entry(own_index(dedup), frame, slot);
    fl_seen_put(dedup->seen, &chunk->identity[page], frame, slot);
    dedup->counts.stored++;
    dedup->counts.declined += dedup->hit_page[page];
}

int fl_dedup_place(struct fl_dedup *dedup, struct fl_chunk *chunk)
{
    chunk->fresh_count = 0;
    if (chunk->hole) {
        dedup->counts.zero += chunk->pages;
        return 0;
    }
    if (dedup->next_frame > UINT32_MAX - FL_CHUNK_PAGES)
        return -EOVERFLOW;
    int r = inherit_pages(dedup, chunk);
    if (r < 0)
        return r;
    collect_hits(dedup, chunk);
    dedup->groups_count = fl_group_hits(dedup->hits, dedup->hits_count, dedup->groups);
    r = accept_groups(dedup, chunk);
    if (r < 0)
        return r;
    for (uint32_t page = 0; page < chunk->pages; page++) {
        if (chunk->zero[page]) {
            chunk->entry[page] = 0;
            dedup->counts.zero++;
        } else if (!dedup->accepted[page]) {
            store_page(dedup, chunk, page);
        }
    }
    dedup->next_frame += (chunk->fresh_count + FL_FRAME_PAGES - 1) / FL_FRAME_PAGES;
    return 0;
}
