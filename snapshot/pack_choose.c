// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A child refers to the frames of its parent. Each generation leaves pages in
// these frames that no longer count, and adds a small frame to each range of 2 MiB that was written
// to, and a pack to the image. To read such a range costs more and more. So a child stores some
// pages again that it could inherit (they count as declined):
// - in a range that was written to, pages of the frames of which least is used, while its frames
//   have more than WASTE_MAX pages in vain, or while it has more than FRAMES_MAX frames. What is
//   stored again is bounded by what was written.
// - pages of the smallest packs, while there are more than PACKS_MANY, up to a share of the image.
// A range that was not written to is as the parent has it: it costs a look at the map.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/dedup.h"
#include "snapshot/hits.h"
#include "snapshot/io.h"
#include "snapshot/pack_parent.h"

enum { WASTE_MAX = FL_CHUNK_PAGES / 8, FRAMES_MAX = 48 };

static uint32_t min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t frames_of(uint32_t pages)
{
    return (pages + FL_FRAME_PAGES - 1) / FL_FRAME_PAGES;
}

// Returns how many pages of the frame are of use to the child, if `lost` of the parent's are not.
static uint32_t used_of(const struct fl_parent *parent, uint32_t pack, uint32_t frame,
                        uint32_t lost, uint32_t size)
{
    uint32_t use = parent->use[pack][frame];
    return min(use - min(lost, use), size);
}

// The pages of a range that the parent has in one frame.
struct group {
    const struct fl_hit *hits; // id.pack is an index into the parent's pack table
    uint32_t hits_count;       // also those that have changed
    uint32_t pages;            // that are inherited
    uint32_t used;             // pages of the frame that are of use to the child
    uint32_t size;             // of the frame
    bool declined;
};

struct choice {
    struct fl_hit hits[FL_CHUNK_PAGES];
    struct fl_hit_group by_frame[FL_CHUNK_PAGES];
    struct group groups[FL_CHUNK_PAGES];
    uint32_t count;  // of groups
    uint32_t frames; // of groups that are not declined
    uint32_t waste;  // pages of these frames that are of no use
    uint32_t fresh;  // pages that will be stored
    uint32_t may;    // pages that may still be declined
};

static struct group make_group(const struct fl_parent *parent, const struct fl_chunk *chunk,
                               const struct fl_hit *hits, uint32_t count)
{
    struct group group = {.hits = hits, .hits_count = count};
    uint32_t pack = (uint32_t)hits->id.pack;
    for (uint32_t i = 0; i < count; i++)
        group.pages += chunk->inherited[hits[i].page] != 0;
    group.size = fl_pack_frame_pages(parent->image->packs[pack], hits->id.frame);
    group.used = used_of(parent, pack, hits->id.frame, count - group.pages, group.size);
    return group;
}

// Frames of which nothing is inherited are left out.
static void group_pages(const struct fl_parent *parent, const struct fl_chunk *chunk,
                        struct choice *choice)
{
    uint32_t hits = 0;
    for (uint32_t page = 0; page < chunk->parent_pages; page++) {
        uint64_t entry = fl_parent_entry(parent, chunk->first_page + page);
        if (entry != 0)
            choice->hits[hits++] = (struct fl_hit){
                .id = {fl_entry_pack(entry), fl_entry_frame(entry)}, .page = (uint16_t)page};
    }
    uint32_t frames = fl_group_hits(choice->hits, hits, choice->by_frame);
    for (uint32_t i = 0; i < frames; i++) {
        struct group group = make_group(parent, chunk, &choice->hits[choice->by_frame[i].first],
                                        choice->by_frame[i].count);
        if (group.pages == 0)
            continue;
        choice->groups[choice->count++] = group;
        choice->frames++;
        choice->waste += group.size - group.used;
    }
}

static void decline(struct choice *choice, struct group *group)
{
    group->declined = true;
    choice->frames--;
    choice->waste -= group->size - group->used;
    choice->fresh += group->pages;
    choice->may -= min(group->pages, choice->may);
}

// Returns the frame of which the smallest share is used; NULL if all are used in full.
static struct group *least_used(struct choice *choice)
{
    struct group *least = NULL;
    for (uint32_t i = 0; i < choice->count; i++) {
        struct group *group = &choice->groups[i];
        if (!group->declined && group->used < group->size &&
            (!least || group->used * least->size < least->used * group->size))
            least = group;
    }
    return least;
}

static struct group *smallest(struct choice *choice)
{
    struct group *least = NULL;
    for (uint32_t i = 0; i < choice->count; i++) {
        struct group *group = &choice->groups[i];
        if (!group->declined && (!least || group->pages < least->pages))
            least = group;
    }
    return least;
}

static void decline_bad_use(struct choice *choice)
{
    struct group *group;
    while (choice->waste > WASTE_MAX && (group = least_used(choice)) && group->pages <= choice->may)
        decline(choice, group);
    while (choice->frames + frames_of(choice->fresh) > FRAMES_MAX && (group = smallest(choice)) &&
           group->pages <= choice->may)
        decline(choice, group);
}

static void decline_packs(const struct fl_parent *parent, struct choice *choice)
{
    for (uint32_t i = 0; i < choice->count; i++) {
        if (!parent->kept[choice->groups[i].hits->id.pack])
            decline(choice, &choice->groups[i]);
    }
}

// The pages of a frame that cannot be read stay where they are: what the parent had of them was no
// better, and the VM may never have needed them.
static void read_declined(const struct fl_parent *parent, struct fl_chunk *chunk,
                          struct choice *choice, struct group *group, struct fl_share_check *check,
                          struct fl_share_room *room)
{
    const struct fl_pack *pack = parent->image->packs[group->hits->id.pack];
    uint32_t frame = group->hits->id.frame;
    int r = fl_pack_read_frame(pack, frame, room->pages);
    if (r < 0) {
        fl_share_check_note(check, (struct fl_frame_id){fl_pack_id(pack), frame});
        choice->fresh -= group->pages;
        choice->frames++;
        return;
    }
    for (uint32_t i = 0; i < group->hits_count; i++) {
        uint32_t page = group->hits[i].page;
        uint64_t entry = chunk->inherited[page];
        if (entry == 0)
            continue;
        memcpy(fl_chunk_add(chunk, page, 1),
               room->pages + (size_t)fl_entry_slot(entry) * FL_PAGE_SIZE, FL_PAGE_SIZE);
        chunk->inherited[page] = 0;
    }
}

// A look without sorting, which counts a frame again where others are between its pages. Returns
// false if that is enough to see that all stays.
static bool must_choose(const struct fl_parent *parent, const struct fl_chunk *chunk,
                        uint32_t fresh, uint32_t *ret_frames)
{
    uint32_t waste = 0;
    *ret_frames = 0;
    for (uint32_t page = 0; page < chunk->parent_pages;) {
        uint64_t place = fl_entry_place(fl_parent_entry(parent, chunk->first_page + page));
        uint32_t pages = 0;
        uint32_t lost = 0;
        for (; page < chunk->parent_pages &&
               fl_entry_place(fl_parent_entry(parent, chunk->first_page + page)) == place;
             page++, pages++)
            lost += chunk->inherited[page] == 0;
        if (place == 0 || lost == pages)
            continue;
        uint32_t size = fl_pack_frame_pages(fl_parent_pack(parent, place), fl_entry_frame(place));
        waste += size - used_of(parent, fl_entry_pack(place), fl_entry_frame(place), lost, size);
        ++*ret_frames;
    }
    return !parent->all_kept ||
           (fresh > 0 && (waste > WASTE_MAX || *ret_frames + frames_of(fresh) > FRAMES_MAX));
}

static uint32_t count_fresh(const struct fl_chunk *chunk)
{
    uint32_t fresh = 0;
    for (uint32_t page = 0; page < chunk->pages; page++)
        fresh += !chunk->zero[page] && !chunk->known[page];
    return fresh;
}

static void choose(const struct fl_parent *parent, struct fl_chunk *chunk, struct choice *choice,
                   struct fl_share_check *check, struct fl_share_room *room)
{
    uint32_t written = choice->fresh;
    group_pages(parent, chunk, choice);
    choice->may = written > 0 ? 4 * written + FL_FRAME_PAGES : 0;
    decline_packs(parent, choice);
    if (written > 0)
        decline_bad_use(choice);
    for (uint32_t i = 0; i < choice->count; i++) {
        if (choice->groups[i].declined)
            read_declined(parent, chunk, choice, &choice->groups[i], check, room);
    }
}

int fl_parent_settle(const struct fl_parent *parent, struct fl_chunk *chunk,
                     struct fl_share_check *check, struct fl_share_room *room)
{
    uint32_t fresh = count_fresh(chunk);
    uint32_t frames = 0;
    if (must_choose(parent, chunk, fresh, &frames)) {
        FL_AUTO_FREE struct choice *choice = calloc(1, sizeof(*choice));
        if (!choice)
            return -ENOMEM;
        choice->fresh = fresh;
        choose(parent, chunk, choice, check, room);
        fresh = choice->fresh;
        frames = choice->frames;
    }
    // What is shared with others comes on top, up to the bound of a range.
    frames += frames_of(fresh);
    uint32_t left = frames < 2 * FL_FOREIGN_FRAMES_MAX ? 2 * FL_FOREIGN_FRAMES_MAX - frames : 0;
    chunk->foreign_max = min(left, FL_FOREIGN_FRAMES_MAX);
    for (uint32_t page = 0; page < chunk->pages; page++)
        chunk->inherited_pages += chunk->inherited[page] != 0;
    return 0;
}
