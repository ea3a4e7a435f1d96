// SPDX-License-Identifier: Apache-2.0
#include "snapshot/share_check.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/dedup.h"
#include "snapshot/hits.h"

struct open_pack {
    uint64_t id;
    struct fl_pack *pack; // NULL: it is gone or damaged
};

struct fl_share_check {
    struct fl_store *store;
    const struct fl_bad_frames *known; // immutable
    bool trust;
    pthread_mutex_t lock; // covers the rest
    // Each pack that a hint has named, so that it is opened once and stays open.
    struct open_pack *packs;
    size_t packs_count, packs_room;
    struct fl_bad_frames found;
    bool incomplete; // for want of memory
};

int fl_share_check_new(struct fl_store *store, const struct fl_bad_frames *known, bool trust,
                       struct fl_share_check **ret_check)
{
    struct fl_share_check *check = calloc(1, sizeof(*check));
    if (!check)
        return -ENOMEM;
    check->store = store;
    check->known = known;
    check->trust = trust;
    pthread_mutex_init(&check->lock, NULL);
    *ret_check = check;
    return 0;
}

void fl_share_check_free(struct fl_share_check *check)
{
    if (!check)
        return;
    for (size_t i = 0; i < check->packs_count; i++) {
        if (check->packs[i].pack)
            fl_pack_unref(check->packs[i].pack);
    }
    free(check->packs);
    fl_bad_frames_free(&check->found);
    pthread_mutex_destroy(&check->lock);
    free(check);
}

// --- frames of a chunk, the ones that give most pages first ---

struct groups {
    struct fl_hit hits[FL_CHUNK_PAGES];
    struct fl_hit_group groups[FL_CHUNK_PAGES];
    uint32_t count;
};

static void group_hints(const struct fl_chunk *chunk, struct groups *groups)
{
    uint32_t hits = 0;
    for (uint32_t page = 0; page < chunk->pages; page++) {
        const struct fl_disk_place *hint = &chunk->hint[page];
        if (hint->pack_id != 0)
            groups->hits[hits++] = (struct fl_hit){
                .id = {hint->pack_id, hint->frame}, .slot = hint->slot, .page = (uint16_t)page};
    }
    groups->count = fl_group_hits(groups->hits, hits, groups->groups);
}

// --- one frame ---

void fl_share_check_note(struct fl_share_check *check, struct fl_frame_id id)
{
    pthread_mutex_lock(&check->lock);
    if (fl_bad_frames_add(&check->found, id) < 0)
        check->incomplete = true;
    pthread_mutex_unlock(&check->lock);
}

// Call it under the lock.
static struct open_pack *remember(struct fl_share_check *check, uint64_t id, struct fl_pack *pack)
{
    if (check->packs_count == check->packs_room) {
        size_t room = check->packs_room ? check->packs_room * 2 : 64;
        struct open_pack *grown = realloc(check->packs, room * sizeof(*grown));
        if (!grown)
            return NULL;
        check->packs = grown;
        check->packs_room = room;
    }
    struct open_pack *entry = &check->packs[check->packs_count++];
    *entry = (struct open_pack){id, pack};
    return entry;
}

// Returns the pack, which stays open as long as the check lives; NULL if it cannot be opened.
static struct fl_pack *find_pack(struct fl_share_check *check, uint64_t id)
{
    struct fl_pack *pack = NULL;
    pthread_mutex_lock(&check->lock);
    const struct open_pack *entry = NULL;
    for (size_t i = 0; !entry && i < check->packs_count; i++)
        entry = check->packs[i].id == id ? &check->packs[i] : NULL;
    if (!entry) {
        if (fl_pack_open(check->store->reader->registry, id, &pack) < 0)
            pack = NULL;
        entry = remember(check, id, pack);
        if (!entry && pack)
            fl_pack_unref(pack);
    }
    pack = entry ? entry->pack : NULL;
    pthread_mutex_unlock(&check->lock);
    return pack;
}

// Compares the pages of the group with the places of their hints, byte by byte. If they differ, the
// pack's own table of identities decides: if it confirms the hint, the frame is not what was
// packed; if not, the hint is wrong and says nothing about the frame.
static bool pages_match(struct fl_chunk *chunk, const struct fl_hit *hits, uint32_t count,
                        const struct fl_pack *pack, const uint8_t *frame)
{
    bool right = true;
    uint32_t slots = fl_pack_frame_pages(pack, hits->id.frame);
    for (uint32_t i = 0; i < count; i++) {
        struct fl_identity recorded;
        uint32_t page = hits[i].page;
        struct fl_disk_place *hint = &chunk->hint[page];
        bool same = hint->slot < slots && memcmp(frame + (size_t)hint->slot * FL_PAGE_SIZE,
                                                 fl_chunk_page(chunk, page), FL_PAGE_SIZE) == 0;
        if (same)
            continue;
        if (hint->slot < slots &&
            fl_pack_read_identities(pack, hits->id.frame, hint->slot, 1, &recorded) == 0 &&
            memcmp(&recorded, &chunk->identity[page], sizeof(recorded)) == 0)
            right = false;
        hint->pack_id = 0;
    }
    return right;
}

// Returns false if no page of the frame may be shared.
static bool check_frame(struct fl_share_check *check, struct fl_chunk *chunk,
                        const struct fl_hit *hits, uint32_t count, struct fl_share_room *room)
{
    struct fl_frame_id id = hits->id;
    if (fl_bad_frames_find(check->known, id))
        return false;
    if (check->trust)
        return true;
    struct fl_pack *pack = find_pack(check, id.pack);
    if (!pack || fl_pack_frame_pages(pack, id.frame) == 0)
        return false;
    int r = fl_pack_read_frame(pack, id.frame, room->pages);
    if (r == -ENOMEM)
        return false;
    if (r < 0 || !pages_match(chunk, hits, count, pack, room->pages)) {
        fl_share_check_note(check, id);
        return false;
    }
    return true;
}

void fl_share_check_chunk(struct fl_share_check *check, struct fl_chunk *chunk,
                          struct fl_share_room *room)
{
    struct groups groups;
    uint32_t good = 0;
    memset(chunk->checked, 0, sizeof(chunk->checked));
    group_hints(chunk, &groups);
    for (uint32_t i = 0; i < groups.count && good < chunk->foreign_max; i++) {
        const struct fl_hit *hits = &groups.hits[groups.groups[i].first];
        uint32_t count = groups.groups[i].count;
        bool use = check_frame(check, chunk, hits, count, room);
        for (uint32_t k = 0; k < count; k++) {
            if (use)
                chunk->checked[hits[k].page] = chunk->hint[hits[k].page].pack_id != 0;
            else
                chunk->hint[hits[k].page].pack_id = 0;
        }
        good += use;
    }
}

int fl_share_check_found(struct fl_share_check *check, const struct fl_bad_frames **ret_found)
{
    fl_bad_frames_sort(&check->found);
    *ret_found = &check->found;
    return check->incomplete ? -ENOMEM : 0;
}
